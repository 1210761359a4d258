"""Places that a job's name fixes, so that not all jobs start at once."""

import hashlib

from builder.model import raw

_BYTES = 4


def place(name: str, size: int, *, draw: int = 0) -> int:
    """Return a number below ``size`` that a name fixes; one of the ``draw``s from 0 to 7, which are independent."""
    digest = hashlib.sha256(raw(name)).digest()
    drawn = digest[_BYTES * draw : _BYTES * (draw + 1)]
    return int.from_bytes(drawn, "big") * size >> 8 * _BYTES
