"""Scripts as they come from editors, in every back end: by their first line, by the shell, or not at all but with a word."""

import codecs
from collections.abc import Iterator

import pytest
from sandbox_runs import Driver, driver

from builder_worker.sandbox.script import interpreter

CARRIED = "builder-worker: the script may fail: its lines end with CR and LF, as on Windows: save it with LF alone"
MARKED = "builder-worker: the script can't be run: it begins with a byte order mark, as editors on Windows write it"

SCRIPTS = {
    "unix": ("#!/bin/sh\necho hi\n", 0, ("hi",)),
    "no first line": ("echo hi", 0, ("hi",)),
    "options": ("#! /bin/sh -e\nfalse\necho hi\n", 1, ()),
    "no program": ("#!/nowhere\n", 127, ("builder-worker: the first line of the script names /nowhere, which is no",)),
    "windows": (
        "#!/bin/sh\r\necho hi\r\n",
        127,
        (r"builder-worker: the first line of the script names /bin/sh\r,", CARRIED),
    ),
    "windows by env": ("#!/usr/bin/env sh\r\necho hi\r\n", 127, (CARRIED,)),
    "windows, no first line": ("echo hi\r\n", 0, (CARRIED, "hi")),
    "marked": ("\ufeff#!/bin/sh\necho hi\n", 126, (MARKED,)),
    "marked, no first line": ("\ufeffecho hi\n", 126, (MARKED,)),
}
"""What a script is, its exit code, and how the lines begin that are to be seen first."""


@pytest.fixture(scope="module", params=[("bubblewrap", "user"), ("none", "user")], ids="-".join)
def worker(request: pytest.FixtureRequest) -> Iterator[Driver]:
    with driver(*request.param) as started:
        yield started


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_run_by_its_first_line_or_it_is_told_why_not(worker: Driver, name: str) -> None:
    script, code, expected = SCRIPTS[name]
    outcome = worker.run(script)
    lines = outcome.output.splitlines()
    for line, beginning in zip(lines, expected, strict=False):
        assert line.startswith(beginning), outcome
    assert outcome.code == code, outcome
    assert outcome.output.count("builder-worker: the") == sum(line.startswith("builder-worker") for line in expected)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_no_shell_takes_a_script_with_a_mark_for_its_own(mark: bytes) -> None:
    assert "/x" not in interpreter(mark + b"#!/usr/bin/python3\n", "/x")


def test_only_the_first_line_counts() -> None:
    assert interpreter(b"echo\necho\r\n", "/x") == ("/bin/sh", "/x")
    assert interpreter(b"#!/bin/sh\necho\r\n", "/x")[-2:] == ("/bin/sh", "")
    assert interpreter(b"#!\t/bin/sh  -e", "/x")[-3:] == ("/x", "/bin/sh", "")
