"""A worker's sandboxes without a worker: runs scripts in one back end, told by lines of JSON, as whichever user.

    sandbox_driver.py '{"backend": …, "options": {…}, "uid": …, "delegate": …}'

The first line of its answer is the back end's check. Then each line of standard input asks for one job, which run at
the same time: {"id", "script", "limits", "environment", "announce", "end", "grace"}, or, to adopt one that another driver
has left, {"id", "adopt", "announce"}; or {"kill": id}, {"leave": id}. A job's answer is
{"id", "code", "signal", "exceeded", "error", "output", "files"}; before it, {"id", "said"} when the output has the
text to announce. The end, of the job or the driver, comes right after the start: "kill" or "die".
"""

import ctypes
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from builder.errors import BuilderError
from builder_worker.sandbox import Backend, Console, Limits, Sandbox, Task, registry
from builder_worker.sandbox.linux import cgroups
from builder_worker.sandbox.options import Bind, Cache, Options

PR_SET_DUMPABLE = 4
MAX_OUTPUT = 1024 * 1024


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def become(uid: int, delegate: str) -> None:
    """Become a user to whom a part of every control group hierarchy was given, as systemd's Delegate=yes does."""
    groups = cgroups.find()
    groups.settle()
    for hierarchy in groups.hierarchies:
        directory = hierarchy.parent / delegate
        directory.mkdir(exist_ok=True)
        for name in (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks"):
            if (directory / name).exists():
                os.chown(directory / name, uid, uid)
        leaf = directory / cgroups.WORKER_LEAF  # of a driver before this one; then no process may be beside it
        ((leaf if leaf.exists() else directory) / "cgroup.procs").write_text("0")
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # a process that changed its user does not own its /proc


def read_options(options: dict[str, Any]) -> Options:
    given = dict(options)
    if "job_uids" in given:
        given["job_uids"] = range(*given["job_uids"])
    for name in ("root", "work_root"):
        if given.get(name):
            given[name] = Path(given[name])
    given["binds"] = tuple(map(Bind.parse, given.get("binds", ())))
    given["devices"] = tuple(map(Path, given.get("devices", ())))
    given["caches"] = tuple(map(Cache.parse, given.get("caches", ())))
    return Options(**given)


async def run(backend: Backend, request: dict[str, Any], running: dict[int, Sandbox]) -> None:
    number = request["id"]
    answer: dict[str, Any] = {"id": number, "output": "", "files": []}
    announce = request.get("announce")
    task = Task(
        uuid=uuid4(),
        name="test",
        platform="test-platform",
        script=request.get("script", "").encode(),
        environment=request.get("environment", {}),
        limits=Limits(**request.get("limits", {})),
        worker_grace=request.get("grace", 0.0),
    )
    try:
        adopts = "adopt" in request
        async with await (backend.adopt(Path(request["adopt"])) if adopts else backend.open(task)) as sandbox:
            running[number] = sandbox
            if not adopts:
                sandbox.start()
            if request.get("end") == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif request.get("end") == "kill":
                sandbox.kill()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(collect, sandbox.console, answer, announce)
                status = await sandbox.wait()
            answer |= {"code": status.code, "signal": status.signal, "exceeded": sandbox.exceeded()}
            answer["files"] = sorted(path.name for path in sandbox.work.iterdir() if path.name != sandbox.script_name)
    except* BuilderError as errors:
        answer["error"] = str(errors.exceptions[0])
    except* Exception:  # noqa: BLE001 - told, and the process ends
        traceback.print_exc()
        os._exit(70)  # the thread that reads standard input would keep the process
    say(answer)


async def collect(console: Console, answer: dict[str, Any], announce: str | None) -> None:
    output = b""
    while len(output) < MAX_OUTPUT and (data := await console.receive_some()):
        output += data
        if announce is not None and announce.encode() in output:
            say({"id": answer["id"], "said": announce})
            announce = None
    answer["output"] = output.decode(errors="replace")


async def serve() -> None:
    given = json.loads(sys.argv[1])
    if given.get("uid"):
        become(given["uid"], given["delegate"])
    backend = registry.make(given["backend"], read_options(given["options"]))
    check = backend.check()
    removed = await backend.clean_up() if check.works else ()
    say(
        {
            "works": check.works,
            "reason": f"{check.reason} ({check.remedy})",
            "limits": sorted(check.limits),
            "notes": check.notes,
            "removed": removed,
        }
    )
    running: dict[int, Sandbox] = {}
    lines = trio.wrap_file(sys.stdin)
    async with trio.open_nursery() as nursery:
        async for line in lines:
            request = json.loads(line)
            if "kill" in request:
                running[request["kill"]].kill()
            elif "leave" in request:
                running[request["leave"]].leave()
            else:
                nursery.start_soon(run, backend, request, running)


def main() -> None:
    trio.run(serve)


if __name__ == "__main__":
    main()
