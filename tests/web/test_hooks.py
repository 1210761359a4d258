"""Hooks: what they are called with, what is heard of them, and how they end."""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from bodies import STARTED
from sites import make_directory

from builder.model import Exited
from builder_web import aftermath, hooks
from builder_web.aftermath import Aftermath
from builder_web.console_index import ConsoleIndexer
from builder_web.directory import DataDirectory
from builder_web.hooks import Hooks
from builder_web.store.records import NewBuild, StoredArtifact
from builder_web.store.store import Store

MAIN = StoredArtifact(path="bin/hello", digest=bytes(32), size=3)


def new(*, failed: bool = False, **changes: Any) -> NewBuild:
    given: dict[str, Any] = {
        "uuid": "b00d0000-0000-4000-8000-000000000001",
        "job": "hello",
        "platform": "debian-12",
        "started": STARTED,
        "finished": STARTED,
        "result": Exited(code=0),
        "console": ConsoleIndexer().finish(),
        "artifacts": () if failed else (MAIN,),
        "main_binary": None if failed else MAIN.path,
        "input_id": None,
        "tags": {},
        "solo5": None,
    }
    return NewBuild(**{**given, **changes})


def hooks_in(tmp_path: Path) -> Hooks:
    return Hooks(configuration=tmp_path / "config", directory=DataDirectory(tmp_path / "data"))


def hook(tmp_path: Path, text: str, name: str = "a.sh", folder: str = "upload-hooks", mode: int = 0o755) -> Path:
    path = tmp_path / "config" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_arguments_are_those_of_the_original(tmp_path: Path) -> None:
    data = tmp_path / "data"
    common = [
        "--job=hello",
        "--uuid=b00d0000-0000-4000-8000-000000000001",
        "--platform=debian-12",
        f"--cache-dir={data}/_cache",
        f"--data-dir={data}",
    ]
    assert hooks_in(tmp_path).arguments(new()) == [
        "--build-time=20261106212000",
        f"--sha256={'0' * 64}",
        *common,
        "--main-binary-filepath=bin/hello",
        f"{data}/_artifacts/00/{'0' * 64}",
    ]
    assert hooks_in(tmp_path).arguments(new(failed=True)) == ["--build-time=20261106212000", *common]


def test_which_hooks_there_are(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    found = hooks_in(tmp_path)
    assert found.find(failed=False) == []
    b, a = hook(tmp_path, "", "b.sh"), hook(tmp_path, "", "a.sh")
    hook(tmp_path, "", "a.txt")
    hook(tmp_path, "", "no.sh", mode=0o644)
    (tmp_path / "config" / "upload-hooks" / "folder.sh").mkdir()
    (tmp_path / "config" / "upload-hooks" / "gone.sh").symlink_to("nowhere")
    failed = hook(tmp_path, "", folder="upload-hooks-failed")
    if os.geteuid():  # nothing is forbidden to root, but what no bit allows
        assert a.exists()
    assert found.find(failed=False) == [a, b]
    assert found.find(failed=True) == [failed]
    assert "no.sh is not executable" in log.text


async def test_output_is_logged_as_text_and_bounded(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    script = "#!/bin/sh\nprintf 'one\\n\\033[31mtwo\\377\\nthree' >&2\n"
    await hooks.run(hook(tmp_path, script), [])
    assert log.messages == ["hook a.sh: one", "hook a.sh: \\x1b[31mtwo\\xff", "hook a.sh: three"]
    log.clear()
    await hooks.run(hook(tmp_path, "#!/bin/sh\nyes | head -n 1000000\nexit 3\n"), [])
    assert log.messages[-2:] == ["hook a.sh: (more of it is not logged)", "hook a.sh ended with 3"]
    assert sum(map(len, log.messages)) < 10 * hooks.MAX_OUTPUT


async def test_a_hook_has_arguments_and_a_sensible_environment(
    tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("OF_THE_OPERATOR", "given")
    script = '#!/bin/sh\necho "$1|$2|$PWD|${NOTIFY_SOCKET-none}|$OF_THE_OPERATOR"; cat\n'
    await hooks.run(hook(tmp_path, script), ["--a=b c", "$(id)"])
    assert log.messages == ["hook a.sh: --a=b c|$(id)|/|none|given"]


async def test_what_can_not_be_run_is_told(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    await hooks.run(hook(tmp_path, "#!/no/such/interpreter\n"), [])
    await hooks.run(hook(tmp_path, "#!/bin/sh\n"), ["a\0b"])
    assert [message.partition(":")[0] for message in log.messages] == ["hook a.sh can't be run"] * 2
    log.clear()
    await hooks.run(hook(tmp_path, "echo without a first line: $1\n"), ["x"])
    assert log.messages == ["hook a.sh: without a first line: x"]


async def test_after_its_time_a_hook_ends_with_all_that_it_started(
    tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "TIME_LIMIT", 1.0)
    monkeypatch.setattr(hooks, "GRACE", 0.1)
    script = (
        f"#!/bin/sh\ntrap '' TERM\necho $$ > {tmp_path}/pid\n(trap '' TERM; sleep 1000) &\nsleep 1000; sleep 1000\n"
    )
    began = time.monotonic()
    await hooks.run(hook(tmp_path, script), [])
    assert time.monotonic() - began < 10
    assert log.messages == ["hook a.sh was ended after 1 s"]
    with trio.fail_after(10):  # who was killed is gone when the kernel comes to it
        while running(int((tmp_path / "pid").read_text())):  # noqa: ASYNC110
            await trio.sleep(0.01)


def running(group: int) -> list[str]:
    """Return the processes of a group that have not ended; those that nobody waits for have."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, member, *_ = stat.read_text().rpartition(")")[2].split()
            found += [stat.parent.name] if int(member) == group and state not in "ZX" else []
    return found


async def test_what_a_hook_leaves_running_is_not_waited_for(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    await hooks.run(hook(tmp_path, f"#!/bin/sh\necho said\nsleep 1000 & echo $! > {tmp_path}/pid\n"), [])
    assert time.monotonic() - began < 10
    assert log.messages == ["hook a.sh: said"]
    os.kill(int((tmp_path / "pid").read_text()), 9)


async def test_at_a_stop_hooks_that_run_end_and_others_are_not_run(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    hook(tmp_path, f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec sleep 1000\n")
    directory = make_directory(tmp_path / "data")
    store = Store.open(directory)
    made = Aftermath(store, directory, hooks_in(tmp_path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.database.run)
        nursery.start_soon(made.run)
        for _ in range(5):
            made.begin(new())
        with trio.fail_after(20):
            while not (tmp_path / "pids").exists() or (tmp_path / "pids").read_text().count("\n") < 2:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    store.close()
    assert "no hooks were run for 3 builds that waited" in log.messages
    for pid in (tmp_path / "pids").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_more_builds_than_may_wait_are_told(
    tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aftermath, "MAX_WAITING", 2)
    directory = make_directory(tmp_path / "data")
    store = Store.open(directory)
    made = Aftermath(store, directory, hooks_in(tmp_path))
    for _ in range(3):
        made.begin(new())
    store.close()
    assert len(log.messages) == 1
    assert "2 builds wait already" in log.messages[0]
