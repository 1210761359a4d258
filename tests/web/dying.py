"""Does something to a data directory, again and again: each time the process dies EVERY changes of the disk later.

    python dying.py upload|remove EVERY FOLDER

After each death a new process recovers, dies in the middle of that as well, and recovers again. A line of JSON on standard
output for each death says what it died before, and what is wrong with the directory at the end.
"""

import itertools
import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from bodies import body
from sites import authorization, make_directory, open_site

from builder_web import vacuum
from builder_web.directory import DataDirectory
from builder_web.store import builds, opening
from builder_web.store.removal import Policy
from builder_web.verification import DataDirectoryCheck

FILES = {"bin/x": b"main", "a": b"shared", "b": b"", "c": b"shared", "d": b"kept"}
KEPT = {"bin/x": b"another", "d": b"kept"}
_CHANGES = ("os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate")


def die_before(change: int, told: int) -> None:
    """Have this process die before a change, and write what that would have been to a descriptor."""
    count = 0
    fsync = os.fsync

    def see(name: str) -> None:
        nonlocal count
        count += 1
        if count == change:
            os.write(told, name.encode())
            os._exit(9)

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in _CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT):
            see(f"{event} {args[0]!r}")

    def seen_fsync(descriptor: int) -> None:
        see("fsync")
        fsync(descriptor)

    sys.addaudithook(hook)
    os.fsync = seen_fsync  # type: ignore[assignment]  # what no audit hook is told of


def in_process(action: Callable[[], Awaitable[None]], change: int = 0) -> str:
    """Do something in a process of its own, and return what it died before, or nothing."""
    ours, theirs = os.pipe()
    if not (child := os.fork()):
        os.close(ours)
        if change:
            die_before(change, theirs)
        trio.run(action)
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as told:  # noqa: PTH123 - a descriptor
        died_before = told.read().decode()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (9 if died_before else 0)
    return died_before


async def upload(root: Path) -> None:
    async with open_site(DataDirectory(root)) as site:
        answer = await site.client.request(
            "POST", "/upload", content=body(1, artifacts=FILES), headers=authorization("admin")
        )
        assert answer.status in (201, 409)


async def remove(root: Path) -> None:
    async with open_site(DataDirectory(root)) as site:
        policy = Policy(latest=0, jobs=("hello",))
        await vacuum.vacuum(site.store, site.directory, policy, site.site.now())


async def recover(root: Path) -> None:
    async with open_site(DataDirectory(root)):
        pass


async def prepare(root: Path, action: str) -> None:
    make_directory(root)
    async with open_site(DataDirectory(root)) as site:
        contents = [body(2, job="other", artifacts=KEPT)] + [body(1, artifacts=FILES)] * (action == "remove")
        for content in contents:
            await site.client.request("POST", "/upload", content=content, headers=authorization("admin"))


def check(root: Path) -> dict[str, object]:
    directory = DataDirectory(root)
    with opening.reading(directory.database) as connection:
        faults = list(DataDirectoryCheck(directory).faults(connection))
        count = len(builds.all_builds(connection))
    faults += [str(path) for path in directory.staging.glob("*")]
    faults += [
        str(path) for path in root.iterdir() if path.is_dir() and path.name[0] != "_" and not any(path.iterdir())
    ]
    return {"builds": count, "faults": faults}


def main(action: str, every: int, folder: Path) -> None:
    template = folder / "template"
    in_process(lambda: prepare(template, action))
    does = {"upload": upload, "remove": remove}[action]
    for change in itertools.count(1, every):
        root = folder / str(change)
        shutil.copytree(template, root)
        died_before = in_process(lambda: does(root), change)  # noqa: B023 - it is called at once
        in_process(lambda: recover(root), 1 + change % 5)  # noqa: B023
        in_process(lambda: recover(root))  # noqa: B023
        found = check(root)
        in_process(lambda: does(root))  # noqa: B023
        print(json.dumps({"died_before": died_before, **found, "again": check(root)}), flush=True)
        if not died_before:
            return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
