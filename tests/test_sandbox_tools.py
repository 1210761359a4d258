"""Programs of ours that are run beside the worker: as they were compiled for it, and never as an older release was."""

import importlib.util
import os
import py_compile
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from builder_worker.sandbox.processes import tools


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    setattr(made, "__cached__", importlib.util.cache_from_source(str(path)))  # noqa: B010 - mypy knows none
    return made


@pytest.mark.parametrize("mode", py_compile.PycInvalidationMode)
@pytest.mark.parametrize("change", ["none", "content", "time", "removed", "garbage"])
def test_a_program_is_the_one_that_is_installed(
    tmp_path: Path, mode: py_compile.PycInvalidationMode, change: str
) -> None:
    source = tmp_path / "program.py"
    source.write_text("print('old')\n")
    compiled = Path(py_compile.compile(str(source), doraise=True, invalidation_mode=mode) or "")
    match change:
        case "content":
            source.write_text("print('the new one')\n")
        case "time":
            source.write_text("print('new')\n")
            os.utime(source, (1, 1))
        case "removed":
            compiled.unlink()
        case "garbage":
            compiled.write_bytes(b"\0" * 8)
    command = tools.python(module(source))
    assert command[0] == sys.executable
    assert command[-1] == str(compiled if change == "none" else source)
    said = subprocess.run(command, capture_output=True, check=True).stdout
    assert said == {"content": b"the new one\n", "time": b"new\n"}.get(change, b"old\n")
