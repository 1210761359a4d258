"""Jobs that try to get out, to stay, or to take everything: one table for all back ends, as root and as a plain user."""

import platform
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen
from sandbox_runs import (
    MIB,
    USER,
    Driver,
    Outcome,
    cases_in_turn,
    driver,
    in_turn,
    kill_hard,
    processes_with,
    start,
    stop,
    wait_gone,
    work_directory,
)

SECRET = "swordfish-" + secrets.token_hex(8)
"""In the environment of the worker, where no job may find it."""

SUBJECTS = [
    ("bubblewrap", "root"),
    ("bubblewrap", "user"),
    ("overlay", "root"),
    ("podman", "root"),
    ("podman", "user"),
]

READ_ONLY = {
    "bubblewrap": "/ /dev /etc /usr /usr/bin /lib /var /home /proc /sys",
    "podman": "/ /etc /usr /usr/bin /lib /var /proc /sys",
    "overlay": "/dev /proc /proc/sys",  # the rest is thrown away after the job
}
"""Where a job may not write, by back end."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes of Linux")

NUMBERS = {
    "x86_64": {"ptrace": 101, "socket": 41, "keyctl": 250, "unshare": 272, "syslog": 103, "bpf": 321, "io_uring": 425},
    "aarch64": {"ptrace": 117, "socket": 198, "keyctl": 219, "unshare": 97, "syslog": 116, "bpf": 280, "io_uring": 425},
}


def call(name: str, *arguments: str) -> str:
    """A line of shell that makes a system call and prints its error's number, 0 for success."""
    number = NUMBERS[platform.machine()][name]
    return f"perl -e '$! = 0; syscall({', '.join([str(number), *arguments])}); print $! + 0, qq(\\n)'\n"


@pytest.fixture(scope="module", params=in_turn(SUBJECTS), ids="-".join)
def subject(request: pytest.FixtureRequest) -> Iterator[Driver]:
    backend, privilege = request.param
    with driver(backend, privilege, secret=SECRET) as started:
        yield started


@frozen
class Case:
    """A hostile script, what it is allowed, and what must be true of its end."""

    script: str
    holds: Callable[[Outcome], bool]
    limits: dict[str, int] = field(factory=dict)


EPERM, ESRCH, ENOSYS, EAFNOSUPPORT = "1", "3", "38", "97"


def says(*lines: str) -> Callable[[Outcome], bool]:
    return lambda outcome: outcome.code == 0 and outcome.output.split() == list(lines)


def says_one_of(*words: str) -> Callable[[Outcome], bool]:
    return lambda outcome: outcome.code == 0 and outcome.output.strip() in words


def is_stopped_by(text: str) -> Callable[[Outcome], bool]:
    return lambda outcome: outcome.exceeded == text and outcome.code != 0


CASES = {
    # What belongs to the host stays there.
    "reads the host's users and passwords": Case(
        "cat /etc/passwd /etc/shadow /proc/1/root/etc/shadow /proc/*/cwd/etc/shadow 2>/dev/null; true",
        lambda outcome: "root:" in outcome.output and USER not in outcome.output,
    ),
    "looks for the worker's environment": Case(
        "cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; env; set",
        lambda outcome: "HOME=" in outcome.output and SECRET not in outcome.output,
    ),
    "looks for the worker's command line": Case(
        "cat /proc/*/cmdline | tr '\\0' ' '",
        lambda outcome: "builder-script" in outcome.output and "sandbox_driver" not in outcome.output,
    ),
    "sees other processes": Case(
        "set -- /proc/[0-9]*; [ $# -lt 8 ] && echo few",
        says("few"),
    ),
    "uses inherited descriptors": Case(
        "for fd in 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 25 30 40 50; do [ -e /proc/$$/fd/$fd ] && echo $fd; done\n"
        "readlink /proc/$$/fd/0",
        # 10 is the shell's own: the script that it reads
        lambda outcome: set(outcome.output.split()) <= {"10", "/dev/null"} and "/dev/null" in outcome.output,
    ),
    "writes kernel settings": Case(
        "for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/vm/drop_caches /proc/sysrq-trigger "
        "/sys/kernel/mm/ksm/run /sys/fs/cgroup/cgroup.procs; do\n"
        "  [ -e $f ] && (echo 0 >$f) 2>/dev/null && echo wrote $f\ndone; true",
        says(),
    ),
    "makes itself hard to kill when memory is short": Case(
        "(echo -1000 >/proc/self/oom_score_adj) 2>/dev/null && echo yes; cat /proc/self/oom_score_adj", says("500")
    ),
    "writes where it may not": Case(
        "for d in $READ_ONLY; do\n  (echo >$d/planted) 2>/dev/null && echo wrote $d\ndone; true",
        says(),
    ),
    "makes a device": Case(
        "mknod /tmp/disk b 254 0 2>/dev/null && head -c 1 /tmp/disk; mknod /build/mem c 1 1 2>/dev/null && head -c 1 /build/mem; true",
        says(),
    ),
    "reads the kernel's memory and disks": Case(
        "for f in /dev/mem /dev/kmem /proc/kcore /dev/sd* /dev/vd* /dev/loop* /dev/kvm; do [ -r $f ] && head -c1 $f; done 2>/dev/null; true",
        says(),
    ),
    "reads the kernel's log": Case(call("syslog", "3", "0", "0"), says(EPERM)),
    # The walls between user and kernel.
    "mounts": Case(
        "mkdir /tmp/m; mount -t tmpfs none /tmp/m 2>/dev/null && echo tmpfs; mount --bind / /tmp/m 2>/dev/null && echo bind; true",
        says(),
    ),
    "unmounts what hides the host": Case(
        "for f in /proc/sys /dev /build /; do umount -l $f 2>/dev/null && echo $f; done; true", says()
    ),
    "makes a user namespace": Case(
        f"unshare --user true 2>/dev/null && echo yes\n{call('unshare', '0x10000000')}", says(EPERM)
    ),
    "leaves by chroot": Case(
        "perl -e 'mkdir q(/tmp/x); chroot q(/tmp/x); chdir q(..) for 1..50; chroot q(.); open F, q(etc/passwd); print <F>'",
        lambda outcome: "root:" in outcome.output and USER not in outcome.output,
    ),
    "enters process 1's namespaces": Case(
        "for n in mnt user net pid ipc; do nsenter --$n=/proc/1/ns/$n true 2>/dev/null && echo $n; done; true", says()
    ),
    "traces process 1 of the host": Case(call("ptrace", "16", "99999", "0", "0"), says_one_of(ESRCH, EPERM)),
    "asks for keys": Case(call("keyctl", "0", "-3", "0"), says(EPERM)),
    "loads BPF": Case(call("bpf", "0", "0", "0"), says(EPERM)),
    "uses io_uring": Case(call("io_uring", "1", "0"), says_one_of(ENOSYS, EPERM)),
    "opens a socket to the hypervisor": Case(call("socket", "40", "1", "0"), says(EAFNOSUPPORT)),
    "gains privileges by a set-user-ID program": Case("grep NoNewPrivs /proc/self/status", says("NoNewPrivs:", "1")),
    "sets the clock": Case("date -s 2001-01-01 >/dev/null 2>&1 && echo set; true", says()),
    "changes the host's name": Case("hostname hacked 2>/dev/null; uname -n", says("builder")),
    # What is there is there for all.
    "takes all memory": Case(
        "perl -e 'push @a, q(x) x 1048576 while 1'; exit $?",
        is_stopped_by("out of memory (limit 64 MiB)"),
        {"memory": 64 * MIB},
    ),
    "takes all memory by files in /dev/shm": Case(
        "head -c 2000000000 /dev/zero >/dev/shm/x",
        lambda outcome: outcome.code != 0 and "space" in outcome.output,
        {"shm_size": 64 * MIB},
    ),
    "is a fork bomb": Case(
        "f() { f & f; }; f 2>/dev/null", is_stopped_by("too many processes (limit 50)"), {"pids": 50}
    ),
    "writes one large file": Case(
        "head -c 30000000 /dev/zero >large", is_stopped_by("work directory full (limit 8 MiB)"), {"work_size": 8 * MIB}
    ),
    "writes a file in large pieces": Case(
        "dd if=/dev/zero of=large bs=1M count=200 2>/dev/null",
        is_stopped_by("work directory full (limit 50 MiB)"),
        {"work_size": 50 * MIB},
    ),
    "writes a large file to /tmp": Case(
        "head -c 30000000 /dev/zero >/tmp/large",
        is_stopped_by("work directory full (limit 8 MiB)"),
        {"work_size": 8 * MIB},
    ),
    "writes many files": Case(
        "i=0; while head -c 1000000 /dev/zero >$i; do i=$((i+1)); done; exit 1",
        is_stopped_by("work directory full (limit 8 MiB)"),
        {"work_size": 8 * MIB},
    ),
    "makes a tree too deep for any path": Case(
        "perl -e 'for (1..2100) { mkdir q(d) and chdir q(d) or exit 1 } chmod 0, q(.) or exit 1'", says()
    ),
    "leaves what nobody may read": Case("mkdir -p a/b; echo >a/b/c; chmod 0 a/b/c a/b a", says()),
    # How it ends is told as it is.
    "names an interpreter that is not there": Case(
        "#!/bin/sh\r\ntrue", lambda outcome: outcome.code == 127 and "names /bin/sh\\r, which" in outcome.output
    ),
    "exits like a killed process": Case("exit 137", lambda outcome: (outcome.code, outcome.signal) == (137, None)),
    "kills itself": Case("kill -9 $$", lambda outcome: (outcome.code, outcome.signal) == (None, 9)),
    "kills all that it can": Case("trap '' TERM; kill -9 -1; kill -9 1", lambda outcome: outcome.error is None),
    "copes with a limit of processes": Case(
        "for i in $(seq 60); do sleep 100 & done 2>/dev/null; exit 0",
        lambda outcome: outcome.code == 2 or (outcome.code, outcome.exceeded) == (0, None),
        {"pids": 50},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_job(subject: Driver, name: str) -> None:
    case = CASES[name]
    missing = set(case.limits) - set(subject.check["limits"])
    assert not missing, f"limits that do not work here: {missing}"
    environment = {"READ_ONLY": READ_ONLY[subject.backend]}
    outcome = subject.run(case.script, limits=case.limits, environment=environment)
    assert case.holds(outcome), outcome


def daemons(mark: str) -> str:
    """A script that starts what does not want to end: `perl -e 1 MARK` names the processes."""
    forever = f'exec perl -e "sleep while 1" {mark}'
    return (
        "trap '' TERM HUP INT QUIT\n"
        f"setsid sh -c '{forever}' &\n"
        f"(setsid sh -c 'trap \"\" TERM HUP; ({forever}) &' >/dev/null 2>&1 </dev/null &)\n"
        f"perl -e 'fork and exit; use POSIX; POSIX::setsid(); fork and exit; close STDOUT; close STDERR; sleep while 1' {mark}\n"
    )


def test_daemons_end_with_the_script(subject: Driver) -> None:
    mark = "daemon-" + secrets.token_hex(8)
    outcome = subject.run(daemons(mark) + "exit 3")
    assert outcome.code == 3, outcome
    assert not processes_with(mark)


def test_a_killed_job_is_gone_and_so_are_its_daemons(subject: Driver) -> None:
    mark = "daemon-" + secrets.token_hex(8)
    number = subject.begin(daemons(mark) + "echo ready; while :; do sleep 1000; done", announce="ready")
    assert processes_with(mark)
    outcome = subject.kill(number)
    assert outcome.signal == 9, outcome
    assert not processes_with(mark)


def test_a_job_does_not_see_another_ones(subject: Driver) -> None:
    mark = "other-" + secrets.token_hex(8)
    number = subject.begin(
        f"echo {mark} >mine; echo {mark} >/tmp/mine; echo {mark} >/dev/shm/mine; echo ready; exec sleep 1000 {mark[:0]}",
        announce="ready",
    )
    outcome = subject.run(
        f"ls {subject.work_root} 2>/dev/null; cat /tmp/mine /dev/shm/mine /build/mine {subject.work_root}/*/disk/build/mine 2>/dev/null; true"
    )
    assert (outcome.code, outcome.output) == (0, ""), outcome
    assert subject.kill(number).signal == 9


def test_the_network_is_off(subject: Driver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        outcome = subject.run(connect(listener.getsockname()[1]))
    assert outcome.code != 0, outcome
    assert "connected" not in outcome.output


def connect(port: int) -> str:
    return f"#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{port} && echo connected"


def test_the_abstract_sockets_of_the_host_are_out_of_reach(subject: Driver) -> None:
    name = "builder-" + secrets.token_hex(8)
    script = (
        "perl -e 'use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0) or die; "
        f'connect(S, pack_sockaddr_un("\\0{name}")) and print "connected"\''
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        outcome = subject.run(script)
    assert (outcome.code, outcome.output) == (0, ""), outcome


def test_nothing_is_typed_into_the_terminal(subject: Driver) -> None:
    outcome = subject.run("perl -e 'ioctl(STDOUT, 0x5412, my $c = q(x)); print $! + 0'")
    assert (outcome.code, outcome.output) == (0, EPERM), outcome


def test_the_surroundings_are_the_same_everywhere(subject: Driver) -> None:
    outcome = subject.run(
        "pwd; uname -n; umask; [ $HOME = /root ] || ls -A $HOME; ls -A /tmp; cat /proc/self/cgroup | grep -v :/$; echo $A",
        environment={"A": "b c"},
    )
    assert outcome.output.splitlines() == ["/build", "builder", "0022", "b c"], outcome


@pytest.mark.parametrize(("backend", "privilege"), cases_in_turn(SUBJECTS))
def test_nothing_survives_a_worker_that_is_killed(backend: str, privilege: str) -> None:
    mark = "daemon-" + secrets.token_hex(8)
    with driver(backend, privilege):
        pass  # whether it works here at all
    with work_directory(privilege) as work_root:
        killed = start(backend, privilege, work_root)
        killed.receive()
        killed.begin(daemons(mark) + "echo ready; exec sleep 1000", announce="ready", limits={"work_size": 8 * MIB})
        assert processes_with(mark)
        kill_hard(killed)
        while left := processes_with(mark):  # each is waited for, and fails the test if it lives
            wait_gone(left)
        assert list(work_root.glob("builder-*"))
        following = start(backend, privilege, work_root, delegate=killed.delegate, home=killed.home)
        try:
            assert any("work directory" in line for line in following.receive()["removed"])
            assert not list(work_root.glob("builder-*"))
            assert not processes_with(mark)
            assert following.run("exit 4").code == 4
        finally:
            stop(following)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the job that does it is written for x86-64")
@pytest.mark.parametrize("privilege", ["root", "user"])
def test_a_job_that_turns_off_its_end_with_the_worker_ends_with_it(privilege: str) -> None:
    mark = "daemon-" + secrets.token_hex(8)
    disarm = Path(__file__).with_name("disarm_init.py").read_text()
    script = f"cat >disarm.py <<'X'\n{disarm}\nX\n/usr/bin/python3 disarm.py\n{daemons(mark)}echo $? ready; sleep 1000"
    with driver("bubblewrap", privilege):
        pass  # whether it works here at all
    with work_directory(privilege) as work_root:
        killed = start("bubblewrap", privilege, work_root)
        killed.receive()
        killed.begin(script, announce="0 ready")
        assert processes_with(mark)
        kill_hard(killed)
        for what in (mark, f"builder-{killed.process.pid}-"):  # the supervisor, too
            while left := processes_with(what):
                wait_gone(left)


@pytest.mark.parametrize(("backend", "privilege"), cases_in_turn(SUBJECTS))
def test_what_the_operator_shares_is_shared(backend: str, privilege: str) -> None:
    with work_directory(privilege) as shared:
        (shared / "file").write_text("hello")
        shared.chmod(0o755)
        options: dict[str, Any] = {
            "network": True,
            "binds": [f"{shared}:/shared"],
            "caches": ["things:/things"],
        }
        with driver(backend, privilege, **options) as started, socket.create_server(("127.0.0.1", 0)) as listener:
            assert started.run(connect(listener.getsockname()[1])).output == "connected\n"
            outcome = started.run("cat /shared/file; echo >/shared/new || echo; echo kept >/things/x")
            assert outcome.code == 0, outcome
            assert outcome.output.startswith("hello")
            assert "Read-only" in outcome.output
            assert started.run("cat /things/x").output == "kept\n"
