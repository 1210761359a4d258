"""What is left of a job whose supervisor is dead: found by a mark in its environment, and killed."""

import trio

from builder_worker.sandbox.processes import supervisor

MARK = "BUILDER_MARK"
"""The variable that has the mark, the name of the job's directory. Nothing but jobs and the programs around them has it,
so that nothing else is killed by it."""

_TIMEOUT = 10.0
"""Seconds for all of it to be gone."""


async def kill_marked(mark: str) -> None:
    """Kill every process with a mark, and what is below those, until there is none; give up after some time."""
    with trio.move_on_after(_TIMEOUT):
        while _kill_marked(f"{MARK}={mark}".encode()):  # noqa: ASYNC110 - nobody tells when one dies
            await trio.sleep(0.01)


def _kill_marked(mark: bytes) -> bool:
    family = supervisor.children()
    marked = {pid for children in family.values() for pid in children if _has_mark(pid, mark)}
    return supervisor.kill_all(marked.union(*(supervisor.below(pid, family) for pid in marked)))


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - thousands of them
            return mark in file.read().split(b"\0")
    except OSError:
        return False  # it is gone, or another user's
