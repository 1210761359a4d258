"""The files of the style: one style sheet, one script, one drawing."""

import hashlib
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from attrs import frozen

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


@frozen(kw_only=True)
class StaticFile:
    """A file that never changes under an address."""

    content: bytes
    media_type: str
    digest: str
    """Part of the address, so that a new content has a new one."""
    modified: float
    """Seconds since 1970."""


def _read(name: str) -> StaticFile:
    path = Path(str(files(__package__).joinpath("static", name)))
    content = path.read_bytes()
    return StaticFile(
        content=content,
        modified=path.stat().st_mtime,
        media_type=_TYPES[name.rpartition(".")[2]],
        digest=hashlib.sha256(content).hexdigest()[:12],
    )


STATIC_FILES = MappingProxyType({name: _read(name) for name in ("style.css", "script.js", "icon.svg")})
"""By their names."""
