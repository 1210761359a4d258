"""The back end ``nspawn``: what systemd-nspawn would give a job, and the worker takes back."""

from collections.abc import Iterator

import pytest
from sandbox_runs import Driver, driver

from builder_worker.sandbox.nspawn import PROPAGATED
from builder_worker.sandbox.processes import tools

DIG = """
for my $hierarchy (glob "/sys/fs/cgroup /sys/fs/cgroup/*") {
    chdir $hierarchy or next;
    my $depth = 0;
    while ($depth < 200 and mkdir "d" x 200 and chdir "d" x 200) { $depth++ }
    print "$hierarchy $depth\\n" if $depth;
    chdir ".." and rmdir "d" x 200 while $depth--;
}
"""
"""Perl that makes deep trees of control groups, and removes them: the worker could not."""


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "network"])
def worker(request: pytest.FixtureRequest) -> Iterator[Driver]:
    with driver("nspawn", "root", network=request.param) as started:
        yield started


def test_a_job_makes_no_control_groups(worker: Driver) -> None:
    outcome = worker.run(f"#!/usr/bin/perl\n{DIG}")
    assert (outcome.code, outcome.output) == (0, ""), outcome


def test_a_job_sees_no_control_groups_and_cannot_uncover_them(worker: Driver) -> None:
    outcome = worker.run("umount /sys/fs/cgroup; ls -A /sys/fs/cgroup; mkdir /sys/fs/cgroup/x || echo no")
    assert outcome.output.splitlines()[-1] == "no", outcome
    assert outcome.output.count("\n") == 3, f"two complaints and the word: {outcome}"


def test_no_handler_of_core_dumps_runs_for_a_job(worker: Driver) -> None:
    """1 is the limit at which the kernel starts none; at 0, it starts those that read from a pipe."""
    outcome = worker.run("grep core /proc/self/limits")
    assert outcome.output.split()[-3:-1] == [str(tools.CORE_LIMIT)] * 2, outcome


def test_nothing_is_left_of_a_job_that_is_killed(worker: Driver) -> None:
    before = set(PROPAGATED.iterdir())
    number = worker.begin("echo ready; exec sleep 1000", announce="ready")
    mine = {path for path in PROPAGATED.iterdir() if path.name.startswith(f"builder-{worker.process.pid}-")} - before
    assert mine
    assert worker.kill(number).signal == 9
    assert not [path for path in mine if path.exists()]
