"""What the control groups around a worker allow it: made-up trees of both versions, and whatever this machine has."""

from pathlib import Path

import pytest
from worker_sandboxes import builder_worker

from builder_worker.sandbox import Limits
from builder_worker.sandbox.linux import cgroups, hierarchies
from builder_worker.sandbox.linux.hierarchies import Ceiling

MIB = 1024 * 1024
NO_LIMIT = "9223372036854771712"
"""What version 1 says where there is none."""

SOMEWHERE = "31 23 0:28 / {top} rw,relatime shared:3 - tmpfs tmpfs rw\n"
VERSION_2 = "36 25 0:31 {root} {top}/unified rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
MEMORY = "37 25 0:32 {root} {top}/memory rw - cgroup cgroup rw,memory\n"
CPU = "38 25 0:33 {root} {top}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"


def make(
    tmp_path: Path,
    mounts: str,
    own: str,
    files: dict[str, str],
    *,
    root: str = "/",
    membership: str = "a/b/builder-worker",
) -> Path:
    """Trees of groups as plain files; ``files`` are relative to their tops, and the groups are those that have some."""
    top = tmp_path / "cgroup"
    for name in ("unified", "memory", "cpu,cpuacct"):
        (top / name / membership).mkdir(parents=True)
    for name, text in files.items():
        (top / name).write_text(f"{text}\n")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(own)
    (proc / "mountinfo").write_text((SOMEWHERE + mounts).format(top=top, root=root))
    return proc


OWN_2 = "0::/a/b/builder-worker\n"
OWN_1 = "8:pids:/\n4:memory:/a/b/builder-worker\n1:cpu,cpuacct:/a/b/builder-worker\n0::/\n"

CASES = {
    "none": (VERSION_2, OWN_2, {"unified/a/memory.max": "max", "unified/a/cpu.max": "max 100000"}, Ceiling()),
    "the nearest": (
        VERSION_2,
        OWN_2,
        {"unified/a/memory.max": str(900 * MIB), "unified/a/b/memory.max": str(300 * MIB)},
        Ceiling(memory=300 * MIB),
    ),
    "one further up": (
        VERSION_2,
        OWN_2,
        {
            "unified/a/memory.max": str(300 * MIB),
            "unified/a/b/memory.max": str(900 * MIB),
            "unified/a/cpu.max": "150000 100000",
            "unified/a/b/cpu.max": "max 100000",
        },
        Ceiling(memory=300 * MIB, cpus=1.5),
    ),
    "beside it": (VERSION_2, "0::/a\n", {"unified/a/b/memory.max": str(MIB)}, Ceiling()),
    "version 1": (
        MEMORY + CPU,
        OWN_1,
        {
            "memory/memory.limit_in_bytes": NO_LIMIT,
            "memory/a/memory.limit_in_bytes": str(300 * MIB),
            "cpu,cpuacct/a/cpu.cfs_quota_us": "50000",
            "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000",
        },
        Ceiling(memory=300 * MIB, cpus=0.5),
    ),
    "both versions": (
        VERSION_2 + MEMORY,
        OWN_1,
        {"memory/a/b/memory.limit_in_bytes": str(300 * MIB), "unified/memory.max": "max"},
        Ceiling(memory=300 * MIB),
    ),
    "nonsense": (VERSION_2, OWN_2, {"unified/a/memory.max": "", "unified/a/cpu.max": "0 0"}, Ceiling()),
    "no control groups": ("", OWN_2, {}, Ceiling()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_smallest_limit_around_a_process_counts(tmp_path: Path, case: str) -> None:
    mounts, own, files, expected = CASES[case]
    assert hierarchies.ceiling(make(tmp_path, mounts, own, files)) == expected


def test_limits_outside_of_a_container_are_told_by_the_kernel(tmp_path: Path) -> None:
    """What is mounted shows the container's own group as its top, with a path that is the machine's."""
    files = {
        "memory/memory.limit_in_bytes": NO_LIMIT,
        "memory/memory.stat": f"cache 4096\nhierarchical_memory_limit {300 * MIB}\nhierarchical_memsw_limit {NO_LIMIT}",
    }
    proc = make(tmp_path, MEMORY, "4:memory:/docker/4711\n", files, root="/docker/4711", membership=".")
    assert hierarchies.ceiling(proc).memory == 300 * MIB


def test_there_is_nothing_where_there_is_no_proc(tmp_path: Path) -> None:
    assert hierarchies.memberships(tmp_path) == ()
    assert hierarchies.ceiling(tmp_path) == Ceiling()


async def test_a_job_of_a_worker_in_a_small_group_gets_less_and_is_told_of_that() -> None:
    groups = cgroups.find()
    if groups.limits != cgroups.LIMITS:
        pytest.skip(f"this user may not make control groups here: {groups.remedy}")
    around = groups.create("around", Limits(memory=300 * MIB, cpus=0.5))
    enter = ("sh", "-c", 'while [ "$1" != -- ]; do echo 0 >"$1"; shift; done; shift; exec "$@"', "sh")
    try:
        done = builder_worker(
            *("run", "--sandbox=none", "-"),
            stdin="exec perl -e '$x = q(y) x (600 << 20)'",
            prefix=(*enter, *map(str, around.entries), "--"),
        )
    finally:
        await around.remove()
    assert "out of memory (limit 200 MiB)" in done.stdout, done.stderr
