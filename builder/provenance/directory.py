"""One hash for all artifacts of a build: ``dirHash`` of in-toto, which is that of a Go module.

It is the SHA-256 of what ``find . -type f | cut -c3- | LC_ALL=C sort | xargs -r sha256sum`` prints where they lie.
"""

import hashlib

from attrs import define, field


@define(eq=False)
class DirectoryHash:
    """Takes artifacts in the order of the bytes of their paths."""

    _sha256: "hashlib._Hash" = field(factory=hashlib.sha256)

    def add(self, path: bytes, sha256: bytes) -> None:
        """Take the next one."""
        self._sha256.update(_line(path, sha256))

    def hexdigest(self) -> str:
        """Return the hash of all."""
        return self._sha256.hexdigest()


def _line(path: bytes, sha256: bytes) -> bytes:
    """Return the line of sha256sum, with its escapes: else a path with an end of a line could stand for two artifacts."""
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return b"%s%s  %s\n" % (b"\\" if escaped != path else b"", sha256.hex().encode(), escaped)
