"""Unified diffs of lines, and what bounds them."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder_web import differences
from builder_web.differences import unified

_LINES = st.lists(st.sampled_from(["a", "b", "c", "", "a longer line"]), max_size=40)


def diff(left: Sequence[str], right: Sequence[str]) -> list[str]:
    return unified(left, right, left_name="old", right_name="new")


def patched(left: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Return what becomes of ``left`` by a unified diff; its ranges must agree with its lines."""
    result: list[str] = []
    position = 0
    for line in lines[2:]:
        if line.startswith("@@"):
            start, _, count = line.split()[1].removeprefix("-").partition(",")
            first = int(start) - (count != "0")
            result += left[position:first]
            position = first
            new_start, _, new_count = line.split()[2].removeprefix("+").partition(",")
            assert len(result) == int(new_start) - (new_count != "0")
        elif line.startswith("+"):
            result.append(line[1:])
        else:
            assert left[position] == line[1:]
            position += 1
            if line.startswith(" "):
                result.append(line[1:])
    return result + list(left[position:])


@given(left=_LINES, right=_LINES)
def test_a_diff_makes_one_of_the_other(left: list[str], right: list[str]) -> None:
    assert patched(left, diff(left, right)) == right


@given(left=_LINES, right=_LINES)
def test_no_diff_is_shorter(left: list[str], right: list[str]) -> None:
    kept = sum(line.startswith(" ") for line in unified(left, right, left_name="", right_name=""))
    changed = sum(line[:1] in {"+", "-"} for line in diff(left, right)[2:])
    common = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            common[i + 1][j + 1] = common[i][j] + 1 if one == other else max(common[i][j + 1], common[i + 1][j])
    assert changed == len(left) + len(right) - 2 * common[-1][-1]
    assert kept <= common[-1][-1]


def test_as_diff_shows_it(tmp_path: Path) -> None:
    left = [f"line {number}" for number in range(40)]
    right = ["first", *left[:10], *left[12:20], "new", *left[20:27], "newer", *left[27:-1]]
    for name, lines in (("old", left), ("new", right)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    command = ["diff", "-u", "--label", "old", "--label", "new", "old", "new"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60).stdout
    assert diff(left, right) == shown.splitlines()


def test_edges() -> None:
    assert diff([], []) == []
    assert diff(["a"], ["a"]) == []
    assert diff([], ["a"]) == ["--- old", "+++ new", "@@ -0,0 +1 @@", "+a"]
    assert diff(["a", "b"], []) == ["--- old", "+++ new", "@@ -1,2 +0,0 @@", "-a", "-b"]


@pytest.mark.parametrize(("limit", "value"), [("MAX_EDITS", 3), ("MAX_STEPS", 3)])
def test_beyond_the_limits_all_differs(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(differences, limit, value)
    left, right = list("xabcdefy"), list("x1b2d3f4y")
    assert [line[0] for line in diff(left, right)[3:]] == [" ", *"-" * 6, *"+" * 7, " "]
    assert patched(left, diff(left, right)) == right


def test_large_texts_take_bounded_time() -> None:
    left = [str(number) for number in range(100_000)]
    right = [str(-number) for number in range(100_000)]
    assert len(diff(left, right)) > 190_000
    assert len(diff(["same"] * 100_000, ["same", "other"] * 50_000)) > 90_000
