"""builder-db in the process of a test, as its entry point runs it."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from attrs import frozen

from builder.runtime import program
from builder_web.administration.cli import command


@frozen
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


def builder_db(*args: str | Path, password: bytes = b"") -> Done:
    raw, err = io.BytesIO(), io.StringIO()
    out = io.TextIOWrapper(raw)
    before = sys.argv, sys.stdin
    sys.argv, sys.stdin = ["builder-db", *map(str, args)], io.TextIOWrapper(io.BytesIO(password))
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            program.run(command, "builder-db")
    finally:
        sys.argv, sys.stdin = before
    out.flush()
    status = ended.value.code
    assert isinstance(status, int)
    return Done(status, raw.getvalue().decode(errors="surrogateescape"), err.getvalue())


def done(*args: str | Path, password: bytes = b"") -> str:
    """Return what a command says that does what it is asked for."""
    found = builder_db(*args, password=password)
    assert (found.status, found.err) == (0, "")
    return found.out


def refused(*args: str | Path, password: bytes = b"") -> tuple[int, str]:
    """Return the exit status of a command that fails, and its one line."""
    found = builder_db(*args, password=password)
    assert found.err.count("\n") == 1, found
    assert found.err.startswith("builder-db: ")
    return found.status, found.err.removeprefix("builder-db: ").rstrip("\n")
