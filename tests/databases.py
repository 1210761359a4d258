"""New databases of builder-server, made once by its own migrations and copied: that takes 50 ms, and waits for the disk."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path


@cache
def _template() -> Path:
    from builder_server.store import Store

    folder = Path(tempfile.mkdtemp(prefix="b-"))
    atexit.register(shutil.rmtree, folder)
    path = folder / "builder.sqlite3"
    Store.open(path).close()
    return path


def make(path: Path) -> None:
    """Make a database as a new server does, unless there is one."""
    if not path.exists():
        shutil.copyfile(_template(), path)
