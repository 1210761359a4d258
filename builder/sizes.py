"""Sizes in words that people read."""

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def format_size(size: int) -> str:
    """Return a number of bytes with at most one decimal, such as "1 byte", "512 MiB" or "1.5 GiB".

    The units are powers of 1024, as in the sizes that people give.
    """
    if size < 1024:
        return f"{size} byte{'' if size == 1 else 's'}"
    value, unit = size / 1024, 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:  # what would be rounded to 1024.0
        value, unit = value / 1024, unit + 1
    return f"{value:.1f}".removesuffix(".0") + f" {_UNITS[unit]}"
