"""Users and passwords for uploads, from a file: one receiver a line, its URL, user and password, with space between them.

A password may have spaces in it. What begins with ``#`` is a comment. No error repeats anything of a line.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import httpx

from builder.errors import BuilderError

CREDENTIAL = "upload-credentials"
"""What the file is called as a credential of systemd's."""


class UnusableCredentials(BuilderError):
    """The file of users and passwords can't be used; the text says which line."""

    exit_code = 2


def default_path(environ: Mapping[str, str]) -> Path | None:
    """Return the file that systemd has put there for this service, if it has: see CREDENTIALS_DIRECTORY in systemd.exec(5)."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(directory, CREDENTIAL) if directory else None
    return path if path and path.exists() else None


def with_credentials(urls: Iterable[str], path: Path) -> tuple[str, ...]:
    """Return the URLs of receivers with the users and passwords of a file in them. Raises UnusableCredentials."""
    found = {}
    for number, (url, user, password) in _lines(path):
        if url in found:
            raise UnusableCredentials(f"{path}, line {number}: that receiver has a line already")
        found[url] = f"{quote(user, safe='')}:{quote(password, safe='')}@", number
    complete = []
    for url in urls:
        userinfo, _ = found.pop(url, ("", 0))
        scheme, mark, rest = url.partition("://")
        complete.append(f"{scheme}{mark}{userinfo}{rest}")
    for _, number in found.values():
        raise UnusableCredentials(f"{path}, line {number}: write the URL as --upload has it, without user and password")
    return tuple(complete)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open("r", encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IROTH:
                raise UnusableCredentials(f"{path}: everybody can read it: chmod o= {path}")
            lines = file.read().splitlines()
    except OSError as error:
        raise UnusableCredentials(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UnusableCredentials(f"{path} is not UTF-8") from None  # which would repeat a part of it
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = line.split(maxsplit=2)
        if len(parts) < 3 or not _is_url(parts[0]):
            raise UnusableCredentials(f"{path}, line {number}: write URL USER PASSWORD")
        yield number, [*parts[:2], parts[2].rstrip()]


def _is_url(text: str) -> bool:
    try:
        return bool(httpx.URL(text).host)
    except httpx.InvalidURL:
        return False
