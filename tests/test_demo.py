"""`make demo` does what the README promises: a real job, twice, the same wheel both times, and a site that says so."""

import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEADLINE = 170
IDENTICAL = "The two wheels are byte-identical"

pytestmark = pytest.mark.long


@contextmanager
def demo(folder: Path, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the demo, whose temporary files are in a folder."""
    with subprocess.Popen(
        [sys.executable, "demo/demo.py"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "TMPDIR": str(folder), "UPLOAD": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def commands_below(folder: Path) -> list[str]:
    """Return the command lines of processes that use a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:  # it has ended
            continue
        if str(folder) in line:
            found.append(line)
    return found


def read_until(process: "subprocess.Popen[str]", wanted: str) -> str:
    assert process.stdout
    read = ""
    for line in process.stdout:
        read += line
        if wanted in line:
            return read
    raise AssertionError(read)


def test_the_demo(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        said, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, (said, errors)
    assert "/job/builder-wheel" in said
    assert "the page says “reproduced" in said
    assert IDENTICAL in said
    assert not list(tmp_path.iterdir())
    assert commands_below(tmp_path) == []


def test_it_stays_up_until_it_is_interrupted(tmp_path: Path) -> None:
    with demo(tmp_path, KEEP="1") as process:
        said = read_until(process, "Look at the pages")
        page = re.findall(r"http://\S+", said)[-1]
        with urllib.request.urlopen(page, timeout=30) as answer:
            assert "reproduced" in answer.read().decode()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=DEADLINE)
    assert (process.returncode, errors) == (0, ""), (rest, errors)
    assert not list(tmp_path.iterdir())
    assert commands_below(tmp_path) == []


@pytest.mark.parametrize(
    "begun", ["choosing a sandbox", "starting a site", "starting a server", "starting a worker", "building the wheel"]
)
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, begun: str) -> None:
    with demo(tmp_path) as process:
        read_until(process, begun)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # who is impatient changes nothing
        _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert "interrupted, everything it started is stopped" in errors
    assert not list(tmp_path.iterdir())
    assert commands_below(tmp_path) == []


def test_it_uploads_to_somebody_elses_site(tmp_path: Path) -> None:
    data, temporary = tmp_path / "data", tmp_path / "demo"
    temporary.mkdir()
    programs = Path(sys.executable).parent
    for command, password in ((["migrate"], b""), (["user-add", "--unrestricted", "user"], b"secret")):
        subprocess.run([programs / "builder-db", *command, "--datadir", data], input=password, check=True, timeout=60)
    options = ["--port", "0", "--datadir", str(data), "--configdir", str(data), "-qq"]
    with subprocess.Popen([programs / "builder-web", *options], stdout=subprocess.PIPE, text=True) as site:
        try:
            assert site.stdout
            address = site.stdout.readline().split()[-1].removeprefix("http://")
            with demo(temporary, UPLOAD=f"http://user:secret@{address}/upload") as process:
                said, errors = process.communicate(timeout=DEADLINE)
            assert process.returncode == 0, (said, errors)
            assert IDENTICAL in said
            assert "starting a site" not in said
            with urllib.request.urlopen(f"http://{address}/job/builder-wheel", timeout=30) as answer:
                assert "reproduced: built 2 times" in answer.read().decode()
            with demo(temporary, UPLOAD=f"http://user:wrong@{address}/upload") as process:
                said, errors = process.communicate(timeout=DEADLINE)
            assert process.returncode == 1
            kept = re.search(r"the results stay in (\S+):", errors)
            assert kept, errors
            assert len(list(Path(kept[1]).glob("builder-wheel/*/full"))) == 2
        finally:
            site.terminate()
    assert commands_below(temporary) == []
