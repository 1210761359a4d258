"""Comparisons of the inputs of two builds, as recorded and where no original can be asked."""

import json
from typing import Any

import pytest
from opam_uploads import comparisons, inputs

from builder_web.opam.comparison import ChangedValue, Inputs, Problem, compare
from builder_web.opam.comparison_json import to_json
from builder_web.opam.switch import Package

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


# --- beyond the recordings -------------------------------------------------------------------------------------------

SWITCH = b'roots: "a.1" installed: ["a.1" "B.1" "c.1"] package "a" {build: ["make"]} package "B" {synopsis: "one"}'


def given(switch: bytes | None = SWITCH, environment: bytes | None = b"", packages: bytes | None = b"") -> Inputs:
    return Inputs(switch=switch, environment=environment, system_packages=packages)


def test_what_cannot_be_read_is_named_and_the_rest_compared() -> None:
    found = compare(given(b"this is { not opam", b"A=1"), given(environment=b"A=2", packages=None))
    assert found.problems == (
        Problem(side="left", file="opam-switch", why="line 1, column 6: expected : or {, found a value"),
        Problem(side="right", file="system-packages", why="the build has no such file"),
    )
    assert found.switch is None
    assert found.system_packages is None
    assert found.environment
    assert found.environment.changed == (ChangedValue(name="A", left="1", right="2"),)
    assert to_json(found) == {
        "env_diff": {
            "left_packages": [],
            "right_packages": [],
            "different_versions": [{"name": "A", "version_left": "1", "version_right": "2"}],
        },
        "package_diff": None,
        "opam_diff": None,
        "problems": [
            {"side": "left", "file": "opam-switch", "reason": "line 1, column 6: expected : or {, found a value"},
            {"side": "right", "file": "system-packages", "reason": "the build has no such file"},
        ],
    }


def test_a_failed_build_is_compared_by_what_it_left() -> None:
    found = compare(inputs("hello-8"), inputs("hello-1"))
    assert found.switch
    assert found.switch.packages.count == 0
    assert [(problem.side, problem.file) for problem in found.problems] == [
        ("left", "build-environment"),
        ("left", "system-packages"),
    ]


def test_opam_files() -> None:
    other = SWITCH.replace(b'"make"', b'"ninja"').replace(b'"one"', b'"two"') + b'package "c" {}'
    found = compare(given(), given(other)).switch
    assert found
    assert [(str(file.package), file.is_effective) for file in found.opam_files] == [("a.1", True), ("B.1", False)]
    assert found.opam_files[0].diff == (
        "--- left/a/opam",
        "+++ right/a/opam",
        "@@ -1,2 +1,2 @@",
        ' name: "a"',
        '-build: "make"',
        '+build: "ninja"',
    )
    assert found.described_once == (Package(name="c", version="1"),)
    assert [file["package_version"] for file in to_json(compare(given(), given(other)))["opam_diff"]["opam_diff"]] == [
        "a.1"
    ]


def test_other_notations_are_no_differences() -> None:
    found = compare(given(), given(SWITCH.replace(b'["make"]', b'[["make"]]'))).switch
    assert found
    assert not found.opam_files


def test_packages_are_in_the_order_of_opam() -> None:
    left = given(b'roots: [] installed: ["b.1" "C.1" "a.1" "same.1"]')
    right = given(b'roots: [] installed: ["same.1"]')
    found = compare(left, right).switch
    assert found
    assert [package.name for package in found.packages.only_left] == ["a", "b", "C"]
    assert found.packages.unchanged == 1
    assert found.duniverse is None
    assert found.duniverse_problem == "not a single root package found in opam switch export"


def test_names_that_stand_there_twice() -> None:
    left = given(packages=b"py39-a-1\npy39-b-1\nx-1\n\n")
    right = given(packages=b"py39-b-1\npy39-c-1\r\nx-1\nnodash\nbytes=\xff\n")
    found = compare(left, right).system_packages
    assert found
    assert found.only_left == (Package(name="py39", version="a-1"),)
    assert found.only_right == (
        Package(name="bytes", version="\ufffd"),
        Package(name="nodash", version=""),
        Package(name="py39", version="c-1\r"),
    )
    assert found.changed == ()
    assert found.unchanged == 1
    assert found.count == 4


DIRECTORY = b'roots: "a.1" package "a" {x-opam-monorepo-duniverse-dirs: [["u" "d" ["sha256=1" "md5=2"]]]}'


@pytest.mark.parametrize(
    ("other", "changed"),
    [
        (DIRECTORY, []),
        (DIRECTORY.replace(b'"u"', b'"elsewhere"'), []),
        (DIRECTORY.replace(b"sha256=1", b"sha256=9"), ["d"]),
        (DIRECTORY.replace(b' "md5=2"', b""), ["d"]),
        (DIRECTORY.replace(b'["sha256=1" "md5=2"]', b""), ["d"]),
    ],
)
def test_directories(other: bytes, changed: list[str]) -> None:
    found = compare(given(DIRECTORY), given(other)).switch
    assert found
    assert found.duniverse
    assert [change.name for change in found.duniverse.changed] == changed


def test_sources_of_a_version_control_are_equal_by_their_address() -> None:
    one = DIRECTORY.replace(b'["sha256=1" "md5=2"]', b"")
    for other, count in ((one, 0), (one.replace(b'"u"', b'"v"'), 1), (b'roots: "a.1" package "a" {}', 1)):
        found = compare(given(one), given(other)).switch
        assert found
        assert found.duniverse
        assert found.duniverse.count == count
