"""Kills a worker's sandbox code at each place where it changes something, and has another process adopt the job or clean up.

    adoption_points.py BACKEND WORK_ROOT FIRST_UID EVERY

Each place, or every so many of them.
The list of places is Python's own: it tells of each file that is opened, made, renamed or removed, of each program that
is started and each socket that is used. Prints a line of JSON for each place: what was about to be done, and what became
of the job. Each life of a worker is a fork of this process, which has loaded all it needs.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import trio

from builder_worker.sandbox import Backend, Limits, SandboxError, Task, job_directory, registry
from builder_worker.sandbox.linux import users
from builder_worker.sandbox.options import Options

CHANGES = frozenset(
    (
        *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.kill"),
        *("subprocess.Popen", "socket.bind", "socket.connect", "socket.sendmsg"),
    )
)


def is_change(event: str, arguments: tuple[object, ...]) -> bool:
    """Return whether an event of Python's is one that changes something."""
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in CHANGES


def fork(act: Callable[[], Awaitable[object]]) -> int:
    """Run something in a process of its own; return its number."""
    pid = os.fork()
    if pid == 0:
        try:
            trio.run(act)
        except BaseException:  # noqa: BLE001 - told, and the process ends
            traceback.print_exc()
            os._exit(70)
        os._exit(0)
    return pid


async def live(backend: Backend, place: int) -> None:
    """Run a job from the spare for it to its removal, and die at a place."""
    count = 0

    def look(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if is_change(event, arguments):
            count += 1
            if count == place:
                sys.stdout.write(json.dumps(f"{event} {arguments[0]!r}"[:100]) + "\n")
                sys.stdout.flush()
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    spare = await backend.spare()
    script = b"echo >file; exit 3"
    task = Task(uuid=uuid4(), name="j", platform="p", script=script, limits=Limits(pids=50), worker_grace=60.0)
    async with await backend.open(task, spare) as sandbox:
        sandbox.start()
        await sandbox.wait()


async def follow(backend: Backend) -> None:
    """Adopt what can be adopted, clean up the rest, and say what it was."""
    became = "nothing"
    for place in job_directory.left_over(backend.options.work_root):
        try:
            async with await backend.adopt(place) as sandbox:
                status = await sandbox.wait()
                assert status.code == 3, status
                assert (sandbox.work / "file").exists()
                became = "adopted"
        except SandboxError as error:
            became = str(error)
    removed = await backend.clean_up()
    if removed and became == "nothing":
        became = "removed"
    assert not list(backend.options.work_root.glob("builder-*")), removed
    if os.geteuid() == 0 and backend.name != "none":
        users.take(backend.options.job_uids, shared=False).release()
    sys.stdout.write(json.dumps(became) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Kill at one place after the other, until there is none."""
    name, work_root, uid, every = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    backend = registry.make(name, Options(work_root=work_root, job_uids=range(uid, uid + 2)))
    place, status = 0, -1
    while status != 0:
        place += every
        dies = fork(partial(live, backend, place))
        status = os.waitstatus_to_exitcode(os.waitpid(dies, 0)[1])
        assert status in (0, -signal.SIGKILL)
        follows = fork(partial(follow, backend))
        assert os.waitpid(follows, 0)[1] == 0


if __name__ == "__main__":
    main()
