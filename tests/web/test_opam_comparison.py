"""Comparisons of the inputs of two builds, as recorded and where no original can be asked."""

import json
from typing import Any

import pytest
from opam_uploads import comparisons, inputs

from builder_web.opam.comparison import compare
from builder_web.opam.comparison_json import to_json

COMPARISONS = comparisons()


def agrees(known: Any, found: Any) -> bool:
    """Whether all that is known of an answer is found in it; lists and values are known as a whole."""
    if isinstance(known, dict) and isinstance(found, dict):
        return all(key in found and agrees(value, found[key]) for key, value in known.items())
    return bool(known == found)


@pytest.mark.parametrize(("left", "right", "known"), COMPARISONS, ids=[f"{a}-{b}" for a, b, _ in COMPARISONS])
def test_recorded_comparisons(left: str, right: str, known: dict[str, Any]) -> None:
    found = to_json(compare(inputs(left), inputs(right)))
    for key in ("env_diff", "package_diff", "opam_diff"):
        if key in known:
            assert agrees(known[key], found[key]), json.dumps(found[key], indent=1)
    assert "problems" not in found
