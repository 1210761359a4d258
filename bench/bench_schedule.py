"""100 000 jobs with cron rules: what it takes to add the first and the last one, and what a tick costs.

python bench/bench_schedule.py [JOBS]
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import sqlalchemy as sa
import trio

from builder.extension.applying import Apply
from builder.extension.schedule import PlanJob
from builder.model import Instant, ScriptJob
from builder.planning import Cron, JobOptions
from builder_server.store import Store, Timing
from builder_server.store.schema import job

JOBS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
BATCH = 1000
SAMPLES = 25
NOW = Instant(1_795_194_796_000)
MINUTE = 60_000


def plan(number: int) -> PlanJob:
    """Return a daily job; together they are spread over the minutes of the day."""
    rule = f"{number % 60} {number // 60 % 24} * * *"
    what = ScriptJob(name=f"job-{number}", platform="p1", script=b"#!/bin/sh\n")
    return PlanJob(job=what, options=JobOptions(cron=Cron(rule=rule, zone="Europe/Copenhagen")), run_now=False)


async def measure_adding(stores: Sequence[Store], first: int) -> list[float]:
    """Return the medians of the seconds that each takes to add a job; by turns, since others use the machine as well."""
    took: list[list[float]] = [[] for _ in stores]
    for number in range(first, first + SAMPLES):
        request = plan(number)
        for turn, (store, found) in enumerate(zip(stores, took, strict=True)):
            now = Instant(NOW.ms + turn)  # a moment of its own: else the run of the rule would be known
            began = time.perf_counter()
            await store.plan(request.job, request.options, now, run_now=False)
            found.append(time.perf_counter() - began)
    return [statistics.median(found) for found in took]


def count_due(connection: sa.Connection, moment: Instant) -> int:
    """Return how many jobs are due."""
    return connection.scalar(sa.select(sa.func.count()).where(job.c.next_run <= moment.ms)) or 0


async def measure_ticks(store: Store, start: Instant) -> tuple[float, float, float]:
    """Return the medians of the seconds of a tick with nothing due, of one minute later, and of the jobs due in that."""
    idle, busy, due = [], [], []
    moment = start
    for _ in range(SAMPLES):
        moment = Instant(moment.ms + MINUTE)
        before = await store.database.read(partial(count_due, moment=moment))
        began = time.perf_counter()
        await store.queue_due(moment)
        busy.append(time.perf_counter() - began)
        due.append(before)
        began = time.perf_counter()
        await store.queue_due(moment)
        idle.append(time.perf_counter() - began)
    return statistics.median(idle), statistics.median(busy), statistics.median(due)


async def main() -> None:
    """Print the medians."""
    with tempfile.TemporaryDirectory() as folder:
        store, empty = (Store.open(Path(folder) / name) for name in ("db", "empty"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            nursery.start_soon(empty.run)
            began = time.perf_counter()
            for number in range(0, JOBS, BATCH):
                added = tuple(map(plan, range(number, min(number + BATCH, JOBS))))
                timings = {each.job.name: Timing.of(each.options, each.job.name, NOW) for each in added}
                await store.apply(Apply(removed=(), changed=(), added=added), timings, NOW)
            took = time.perf_counter() - began
            first, last = await measure_adding([empty, store], JOBS)
            print(f"adding a job: {first * 1000:.1f} ms the first, {last * 1000:.1f} ms with {JOBS} others")
            print(f"adding jobs at once: {took / JOBS * 1000:.2f} ms each")
            idle, busy, due = await measure_ticks(store, NOW)
            print(f"a tick: {idle * 1000:.2f} ms with nothing due, {busy * 1000:.1f} ms with {due:.0f} due")
            nursery.cancel_scope.cancel()
        store.close()
        empty.close()


if __name__ == "__main__":
    trio.run(main)
