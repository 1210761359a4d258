"""Writing artifacts below a directory, whatever their paths say and whatever lies there already."""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from builder.errors import BuilderError, InvalidName
from builder.model import check_artifact_path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""What file systems say that know one name for each file."""


class NotWritten(BuilderError):
    """An artifact that is not written, and why; the others are."""


class Extraction:
    """Writes one artifact after the other below a directory.

    Every folder of a path is opened by itself without following symlinks, relative to the one before it, so that
    nothing that lies in the directory, or comes there meanwhile, leads out of it. An artifact has its name once it is complete,
    and leaves no file otherwise. With ``force`` it replaces an existing file; without, that stays.
    """

    def __init__(self, directory: str, *, force: bool) -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        self._root = os.open(directory, _DIRECTORY)
        self._force = force
        self._above: list[str] = []
        self._folder = -1
        self._file = -1
        self._name = self._written_name = ""

    def close(self) -> None:
        """End the extraction; an artifact that is not complete goes."""
        self.abandon()
        os.close(self._root)

    def enter(self, folder: str) -> None:
        """Write into a folder of the directory from now on; it is made with the first artifact."""
        self._above = [folder]

    def start(self, path: str) -> None:
        """Begin an artifact. Raises NotWritten if it can't have that path here."""
        self.abandon()
        try:
            check_artifact_path(path)
        except InvalidName as error:
            raise NotWritten(str(error)) from error
        *folders, self._name = path.split("/")
        try:
            self._folder = self._open_folder([*self._above, *folders])
            if not self._force:
                _check_is_free(self._name, self._folder)  # before a gigabyte is written
            self._written_name = f".builder-{secrets.token_hex(8)}.part"
            self._file = os.open(self._written_name, _NEW_FILE, 0o666, dir_fd=self._folder)
        except OSError as error:
            self.abandon()
            raise NotWritten(_reason(error)) from error

    def write(self, data: bytes) -> None:
        """Append to the artifact that was started; does nothing after one that was not written."""
        view = memoryview(data)
        while self._file >= 0 and view:
            view = view[os.write(self._file, view) :]

    def complete(self) -> None:
        """End the artifact that was started."""
        if self._file < 0:
            return
        os.close(self._file)
        self._file = -1
        try:
            self._name_it()
        except OSError as error:
            os.unlink(self._written_name, dir_fd=self._folder)
            raise NotWritten(_reason(error)) from error
        finally:
            os.close(self._folder)
            self._folder = -1

    def _name_it(self) -> None:
        """Give the file its name. Raises FileExistsError where another has it meanwhile."""
        if not self._force:
            try:
                os.link(self._written_name, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                _check_is_free(self._name, self._folder)
            else:
                os.unlink(self._written_name, dir_fd=self._folder)
                return
        os.rename(self._written_name, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def abandon(self) -> None:
        """Give the artifact up that was started: it leaves no file."""
        if self._file >= 0:
            os.close(self._file)
            os.unlink(self._written_name, dir_fd=self._folder)
        if self._folder >= 0:
            os.close(self._folder)
        self._file = self._folder = -1

    def _open_folder(self, folders: list[str]) -> int:
        folder = os.dup(self._root)
        for name in folders:
            parent = folder
            try:
                _make_folder(name, parent)
                folder = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            finally:
                os.close(parent)
        return folder


def _make_folder(name: str, parent: int) -> None:
    with contextlib.suppress(FileExistsError):  # what it is shows when it is opened
        os.mkdir(name, dir_fd=parent)


def _check_is_free(name: str, folder: int) -> None:
    """Raise FileExistsError where there is something of that name."""
    with contextlib.suppress(FileNotFoundError):
        os.lstat(name, dir_fd=folder)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EEXIST:
            return "a file of that name exists (--force replaces it)"
        case errno.ELOOP | errno.ENOTDIR:
            return "a part of its path exists and is no directory"
    return error.strerror or str(error)
