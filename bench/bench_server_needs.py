"""What it costs to ask for a job where 100 000 entries need what the worker does not have: milliseconds of one take.

python bench/bench_server_needs.py [ENTRIES] [SETS]
"""

import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import trio
from figures import show

from builder.extension.applying import Apply
from builder.extension.schedule import PlanJob
from builder.extension.working import Fact
from builder.model import Instant, ScriptJob
from builder.needs import Need
from builder.planning import JobOptions
from builder_server.limits import ServerLimits
from builder_server.store import Holder, Store, Timing

ENTRIES = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
SETS = int(sys.argv[2]) if len(sys.argv) > 2 else 100
BATCH = 1000
SAMPLES = 25
NOW = Instant(1_795_194_796_000)


def plan(number: int, needs: tuple[Need, ...]) -> PlanJob:
    """Return a job that is queued at once."""
    what = ScriptJob(name=f"job-{number}", platform="p1", script=b"#!/bin/sh\n")
    return PlanJob(job=what, options=JobOptions(needs=needs), run_now=True)


async def fill(store: Store, first: int, count: int, sets: int) -> None:
    """Queue jobs that need one of several labels by turns, or nothing."""
    for start in range(first, first + count, BATCH):
        numbers = range(start, min(start + BATCH, first + count))
        jobs = [plan(number, (Need(name=f"label-{number % sets}"),) if sets else ()) for number in numbers]
        timings = {each.job.name: Timing.of(each.options, each.job.name, NOW) for each in jobs}
        await store.apply(Apply(removed=(), changed=(), added=tuple(jobs)), timings, NOW)


async def takes(store: Store, able: tuple[Fact, ...]) -> list[float]:
    """Return the milliseconds of some takes."""
    took = []
    for _ in range(SAMPLES):
        began = time.perf_counter()
        await store.take("p1", uuid4(), NOW, None, Holder(address="", facts=able))
        took.append((time.perf_counter() - began) * 1000)
    return took


async def main() -> None:
    """Measure an empty queue, one of jobs that need nothing, and one where nobody meets what comes first."""
    last = (Fact(name=f"label.label-{SETS - 1}", value=""),)
    for what, filled, sets, able in (
        ("nothing is queued", 0, 0, ()),
        (f"{ENTRIES} entries need nothing", ENTRIES, 0, ()),
        (f"{ENTRIES} of {SETS} sets, none is met", ENTRIES, SETS, ()),
        (f"{ENTRIES} of {SETS} sets, the last is met", ENTRIES, SETS, last),
    ):
        with tempfile.TemporaryDirectory(prefix="builder-bench-") as directory:
            store = Store.open(Path(directory) / "db")
            store.limits = ServerLimits(jobs=2 * ENTRIES)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(store.run)
                    await fill(store, 0, filled, sets)
                    show(what, await takes(store, able), "ms")
                    if sets:
                        await fill(store, ENTRIES, SAMPLES, 0)
                        show("  and others behind them need nothing", await takes(store, ()), "ms")
                    nursery.cancel_scope.cancel()
            finally:
                store.close()


trio.run(main)
