"""Values that names fix, so that a hundred daily jobs do not start at once."""

import hashlib

from builder.model import raw


def place(name: str, size: int, *, field: int = 0) -> int:
    """Return a number below ``size`` that the name fixes; that of another field, up to 7, has nothing to do with it."""
    digest = hashlib.sha256(raw(name)).digest()
    return int.from_bytes(digest[4 * field : 4 * field + 4], "big") * size >> 32
