"""builder-provision as a process, and an engine of scripts that starts workers on this machine: what its tests share."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from attrs import frozen
from farm import DEADLINE, Program, Server, eventually, read_line, start

from builder.endpoint import Servers
from builder_provision import planning
from builder_provision.configuration import read
from builder_provision.service import Settings, serve

WORKER = [sys.executable, "-m", "builder_worker"]
"""The command of a worker where nothing but PATH is inherited."""

_ASK = """#!/bin/sh -eu
cd {root}
echo "$BUILDER_NAME|$BUILDER_PLATFORM|$BUILDER_NEEDS|$BUILDER_MEMORY_MIB|$BUILDER_CORES|$BUILDER_FEATURES|$BUILDER_TIME_LIMIT" >> asked
test ! -e refuses || {{ echo "no room" >&2; exit 1; }}
echo queued > workers/$BUILDER_NAME
test -e holds || {{ echo started > workers/$BUILDER_NAME; test -e silent || setsid ./work > /dev/null 2>&1 & }}
echo "id-$BUILDER_NAME"
"""

_WORK = """#!/bin/sh -u
cd {root}
touch sessions/$$
eval "$BUILDER_WORKER" >> worker.log 2>&1
rm workers/$BUILDER_NAME sessions/$$
"""

_LIST = """#!/bin/sh -eu
cd {root}
test ! -e broken || {{ echo "the engine is away" >&2; exit 1; }}
for worker in workers/*; do
  test -e $worker || continue
  state=$(cat $worker 2>/dev/null || true)
  test -z "$state" || echo "id-${{worker#workers/}} $state for no reason"
done
"""

_REMOVE = """#!/bin/sh -eu
cd {root}
echo "$BUILDER_NAME|$BUILDER_ID|$BUILDER_STARTED" >> removed
test ! -e keeps || {{ echo "it stays" >&2; exit 1; }}
rm workers/$BUILDER_NAME
"""


@frozen(kw_only=True)
class Scripts:
    """The engine: files below ``root`` say what it does."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> "Scripts":
        for name in ("workers", "sessions"):
            (root / name).mkdir(parents=True)
        for name, text in (("ask", _ASK), ("work", _WORK), ("list", _LIST), ("remove", _REMOVE)):
            (root / name).write_text(text.format(root=root))
            (root / name).chmod(0o755)
        return cls(root=root)

    def end(self) -> None:
        """Kill all workers that are left."""
        for path in (self.root / "sessions").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(path.name), signal.SIGKILL)

    @property
    def asked(self) -> list[list[str]]:
        """What it was asked for: name, platform, needs, memory, cores, features, seconds."""
        path = self.root / "asked"
        return [line.split("|") for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def removed(self) -> list[list[str]]:
        path = self.root / "removed"
        return [line.split("|") for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def workers(self) -> list[str]:
        """The workers that are not gone."""
        return sorted(path.name for path in (self.root / "workers").iterdir())

    def table(self) -> str:
        """Return what a fleet says of it."""
        return "[engines.command]\n" + "".join(
            f'{name} = ["{self.root}/{name}"]\n' for name in ("ask", "list", "remove")
        )


def platform(name: str, server: Server, engine: str = "command", **more: object) -> str:
    """Return what a fleet says of a platform."""
    work = server.log_path.with_name("work")
    keys = {
        "engine": engine,
        "most": 2,
        "command": WORKER,
        "worker": [f"--remote={server.remote}", "--sandbox=none", f"--work-dir={work}"],
    } | {key.replace("_", "-"): value for key, value in more.items()}
    return f"[platforms.{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items())


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {json.dumps(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


@contextmanager
def running_provision(root: Path, server: Server, fleet: str, *arguments: str, **env: str) -> Iterator[Program]:
    """Run builder-provision as a process until the block ends, and stop it."""
    (root / "provision.toml").write_text(fleet)
    (root / "state").mkdir(exist_ok=True)
    program = start(
        "builder_provision",
        str(root / "provision.toml"),
        f"--remote={server.remote}",
        f"--state={root / 'state'}",
        *arguments,
        log_path=root / "provision.log",
        env=env,
    )
    try:
        assert " asks for workers of " in read_line(program)
        yield program
        assert program.terminate(DEADLINE) == 0, program.log
    except BaseException as error:
        error.add_note(f"--- log of builder-provision ---\n{program.log}")
        raise
    finally:
        if program.process.poll() is None:
            program.kill()
        if program.process.stdout:
            program.process.stdout.close()


@asynccontextmanager
async def provisioning(root: Path, server: Server, fleet: str, *, pause: float = 0.1) -> AsyncIterator[None]:
    """Run builder-provision's own code in this process until the block ends; it ends as by a crash."""
    (root / "provision.toml").write_text(fleet)
    (root / "state").mkdir(exist_ok=True)
    settings = Settings(
        servers=Servers.of(server.remote, {}),
        fleet=read(root / "provision.toml"),
        directory=root / "state",
        pause=pause,
    )
    announced: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve, settings, announced.extend))
        await eventually(lambda: announced)
        yield
        nursery.cancel_scope.cancel()


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it look at the engine often."""
    monkeypatch.setattr(planning, "COMING", 0.3)
    monkeypatch.setattr(planning, "LEAVING", 0.1)
