"""Loads asn1tools without what nobody here needs of it: in half the time, for which every start of a program waits.

What it encodes by other rules than BER's, and what writes programs, is loaded when it is used.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

_UNUSED = frozenset(
    (
        *(f"asn1tools.codecs.{name}" for name in ("der", "gser", "jer", "oer", "per", "uper", "xer")),
        *(f"asn1tools.source.{name}" for name in ("c", "rust")),
    )
)


class _Lazily(MetaPathFinder):
    """Finds what is not used, to be loaded at its first use."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname in _UNUSED else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def load() -> ModuleType:
    """Return asn1tools. Where it is there already, it is as it is."""
    finder = _Lazily()
    sys.meta_path = [finder, *sys.meta_path]  # a new list: other threads may be walking through the old one
    try:
        return importlib.import_module("asn1tools")
    finally:
        sys.meta_path = [each for each in sys.meta_path if each is not finder]
