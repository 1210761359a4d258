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
    root: Path, program: str, library: str, *arguments: str, ignoring: bool = False, slow: str = SLOW
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that takes long to load a library, and is loading it; yield the process."""
    (root / f"{library}.py").write_text(slow)
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


PATIENT = """
import os, sys, time
os.write(1, b"loading\\n")
while not os.path.exists({go_on!r}):
    time.sleep(0.01)
sys.path.remove({root!r})
del sys.modules[__name__]
__import__(__name__)  # the real one
"""


@contextmanager
def hung_up_on(root: Path, program: str, library: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that gets a SIGHUP while it loads a library, and then goes on."""
    go_on = root / "go-on"
    slow = PATIENT.format(go_on=str(go_on), root=str(root))
    with loading(root, program, library, *arguments, slow=slow) as process:
        process.send_signal(signal.SIGHUP)
        go_on.touch()
        yield process


def test_a_worker_that_is_hung_up_on_while_it_begins_drains(tmp_path: Path) -> None:
    arguments = ("--loop", "p1", "--sandbox=none", f"--work-dir={tmp_path}/work")
    with hung_up_on(tmp_path, "builder-worker", "trio", *arguments) as process:
        _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors
    assert b"draining on SIGHUP" in errors


def test_a_server_that_is_hung_up_on_while_it_begins_goes_on(tmp_path: Path) -> None:
    for name in ("data", "etc"):
        (tmp_path / name).mkdir()
    arguments = ("--port=0", f"--dir={tmp_path}/data", f"--config-dir={tmp_path}/etc")
    with hung_up_on(tmp_path, "builder-server", "trio", *arguments) as process:
        assert process.stdout
        assert b"listening" in process.stdout.readline()
        process.terminate()
        _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors
    assert b"SIGHUP: nothing to read again" in errors


@pytest.mark.parametrize("arguments", [("check", "--json"), ("run", "-")])
def test_other_commands_end_when_they_are_hung_up_on(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with hung_up_on(tmp_path, "builder-worker", "click", *arguments) as process:
        process.communicate(timeout=DEADLINE)
    assert process.returncode == -signal.SIGHUP


def test_who_ignores_it_goes_on_ignoring_it(tmp_path: Path) -> None:
    with loading(tmp_path, "builder-client", "click", "--help", ignoring=True) as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
        assert process.returncode == -signal.SIGTERM
