"""What must hold for any bytes holds for those that a search begins with, and for those that once broke it."""

from collections.abc import Callable

import pytest
from fuzz.properties import PROPERTIES, check
from fuzz.seeds import seeds
from vectors import DATA

from builder import codec
from builder.messages import Success
from builder.outputs import Outputs


def test_what_a_search_begins_with() -> None:
    tried = [0] * len(PROPERTIES)
    for seed in seeds():
        tried[seed[0]] += 1
        check(seed)
    assert all(tried)


def test_what_was_found() -> None:
    for path in (DATA / "fuzz").glob("*"):
        check(path.read_bytes())


def test_what_is_broken_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cut: Callable[[Outputs, bytes], tuple[list[bytes], int]] = Outputs.cut
    monkeypatch.setattr(Outputs, "cut", lambda outputs, data: ([b"other"], cut(outputs, data)[1]))
    with pytest.raises(AssertionError):
        test_what_a_search_begins_with()
    monkeypatch.setattr(Outputs, "cut", cut)
    success = codec.encode(Success())
    monkeypatch.setattr(codec, "encode", lambda _: success)
    with pytest.raises(AssertionError):
        test_what_a_search_begins_with()
