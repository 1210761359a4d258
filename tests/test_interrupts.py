"""Ctrl-C while a program still loads its libraries ends it without a word; below nohup it is ignored."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from farm import DEADLINE, environment

SLOW = """
import os, time
os.write(1, b"loading\\n")
time.sleep(60)
"""

PROGRAMS = {
    "builder-server": "from builder_server.__main__ import main",
    "builder-worker": "from builder_worker.__main__ import main",
    "builder-client": "from builder_client.__main__ import main",
    "builder-inspect": "from builder_client.__main__ import inspect as main",
}

IGNORING = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")


@contextmanager
def loading(
    root: Path, program: str, library: str, *arguments: str, ignoring: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that takes long to load a library, and is loading it; yield the process."""
    (root / f"{library}.py").write_text(SLOW)
    env = environment()
    env["PYTHONPATH"] = f"{root}{os.pathsep}{env['PYTHONPATH']}"
    code = f"import sys; sys.argv[0] = {program!r}; {PROGRAMS[program]}; main()"
    with subprocess.Popen(
        [*(IGNORING if ignoring else ()), sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"loading\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("program", PROGRAMS)
def test_while_the_command_line_is_loaded(tmp_path: Path, program: str) -> None:
    with loading(tmp_path, program, "click", "--help") as process:
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=DEADLINE)
        assert (process.returncode, output, errors) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize(
    ("program", "library", "arguments"),
    [
        ("builder-server", "trio", ()),
        ("builder-worker", "trio", ("p1",)),
        ("builder-client", "socket", ("info",)),
        ("builder-inspect", "tempfile", ("-",)),
    ],
)
def test_while_the_rest_is_loaded(tmp_path: Path, program: str, library: str, arguments: tuple[str, ...]) -> None:
    with loading(tmp_path, program, library, *arguments) as process:
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=DEADLINE)
        assert (process.returncode, output, errors.strip()) == (130, b"", b"")


def test_who_ignores_it_goes_on_ignoring_it(tmp_path: Path) -> None:
    with loading(tmp_path, "builder-client", "click", "--help", ignoring=True) as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
        assert process.returncode == -signal.SIGTERM
