"""Sizes in words."""

import pytest

from builder.quantities import parse_size
from builder.sizes import format_size


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (2**20 - 52, "1023.9 KiB"),
        (2**20 - 51, "1 MiB"),
        (512 << 20, "512 MiB"),
        (12_400_000, "11.8 MiB"),
        (5 << 40, "5 TiB"),
        (1 << 60, "1048576 TiB"),
    ],
)
def test_sizes_are_told_in_words(size: int, words: str) -> None:
    assert format_size(size) == words


@pytest.mark.parametrize("given", ["64G", "512M", "1.5GiB", "3KB", "2T"])
def test_a_size_is_told_as_it_was_given(given: str) -> None:
    size = parse_size(given)
    assert parse_size(format_size(size).replace(" ", "")) == size
