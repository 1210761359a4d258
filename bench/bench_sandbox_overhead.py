"""What a sandbox costs: the time of a job that does nothing, in each back end that works here, against none.

Medians, from the moment at which a worker has the job until its directory is removed again, with the limits that a
worker sets by itself: once it has waited for the job, as workers do, and when there was no time to get ready. Back ends
that need a root tree take the one in BUILDER_TEST_CACHE (/var/cache/builder-tests),
where the tests have left it, or the one that is named:

    python bench/bench_sandbox_overhead.py [ROOT]
"""

import os
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from uuid import uuid4

import trio

from builder_worker.allowances import Machine, allot
from builder_worker.sandbox import Backend, Limits, SandboxError, Task, registry
from builder_worker.sandbox.options import Options

RUNS = 25
ROOT = Path(os.environ.get("BUILDER_TEST_CACHE", "/var/cache/builder-tests"), "debian-12")
WAIT = 0.1  # seconds in which a worker gets ready
GOALS = {"none": 30.0, "bubblewrap, /usr": 25.0}  # milliseconds


async def measure(backend: Backend, limits: Limits, *, waits: bool) -> float:
    """Return the median time of a job in milliseconds, for a worker that has waited for it or not."""
    times = []
    for _ in range(RUNS + 1):
        spare = await backend.spare() if waits else None
        if spare:
            await trio.sleep(WAIT)
        begin = trio.current_time()
        task = Task(uuid=uuid4(), name="bench", platform="bench", script=b"exit 0\n", limits=limits)
        async with await backend.open(task, spare) as sandbox:
            sandbox.start()
            status = await sandbox.wait()
        if status.code != 0:
            raise SandboxError(f"a trivial job ended with {status}")
        times.append(trio.current_time() - begin)
    return statistics.median(times[1:]) * 1000  # the first one warms up


def compare(root: Path | None, work_root: Path) -> None:
    """Print a table of the back ends."""
    print(f"sandboxes: time of a trivial job, medians of {RUNS} runs; root tree: {root or 'none'}")
    print(f"{'':<22}{'ms':>8}{'over none':>12}{'ratio':>8}{'not ready':>12}")
    plain = Options(work_root=work_root)
    # on the host's own /usr too, which is what a worker uses if nobody says
    rows = [("none", plain, "none"), ("bubblewrap, /usr", plain, "bubblewrap")]
    if root:
        in_tree = Options(work_root=work_root, root=root)
        rows += [(name, in_tree, name) for name in registry.NAMES if name != "none"]
    none = 0.0
    for title, options, name in rows:
        backend = registry.make(name, options)
        check = backend.check()
        if not check.works:
            print(f"{title:<22}  does not work here: {check.reason}")
            continue
        limits = allot(Limits(), slots=1, real=check.limits, machine=Machine.here())
        took, unready = (trio.run(partial(measure, backend, limits, waits=waits)) for waits in (True, False))
        none = none or took
        print(f"{title:<22}{took:>8.1f}{took - none:>12.1f}{took / none:>8.2f}{unready:>12.1f}", flush=True)
    goals = ", ".join(f"{title} {goal:.0f} ms" for title, goal in GOALS.items())
    print(f"Goals on a machine that does nothing else: {goals}")


def main() -> None:
    root = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else ROOT
    with tempfile.TemporaryDirectory(prefix="builder-bench-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o711)
        compare(root if root.is_dir() else None, Path(directory, "jobs"))


if __name__ == "__main__":
    main()
