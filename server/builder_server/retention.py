"""How long builds are kept, as operators say it: ``age=90d,count=20,bytes=500G``. Pure."""

import datetime as dt
from collections.abc import Iterable

from attrs import fields, frozen

from builder.model import printable
from builder.quantities import InvalidQuantity, parse_count, parse_duration, parse_size

_EXAMPLE = "write it as in age=90d,count=20,bytes=500G"


@frozen(kw_only=True)
class Retention:
    """What is kept of finished builds; None is all. ``count`` is per job, ``bytes`` of the consoles and records on the disk."""

    age: dt.timedelta | None = None
    count: int | None = None
    bytes: int | None = None


def parse_retention(texts: Iterable[str]) -> Retention:
    """Return what is kept. Raises InvalidQuantity, which says what to write."""
    values: dict[str, object] = {}
    known = [field.name for field in fields(Retention)]
    for part in (part.strip() for text in texts for part in text.split(",")):
        key, _, value = part.partition("=")
        if key not in known:
            raise InvalidQuantity(f"{printable(part[:50])!r} is none of {', '.join(known)}: {_EXAMPLE}")
        if key in values:
            raise InvalidQuantity(f"{key} is said twice: {_EXAMPLE}")
        match key:
            case "age" if value.isdecimal():  # days are meant, and seconds would be understood: all builds would go
                raise InvalidQuantity(f"{printable(part[:50])!r} has no unit: {_EXAMPLE}")
            case "age":
                values[key] = dt.timedelta(seconds=parse_duration(value))
            case "count":
                values[key] = parse_count(value)
            case _:
                values[key] = parse_size(value)
    return Retention(**values)  # type: ignore[arg-type]  # each has the type of its field
