"""Jobs in FreeBSD's jails: real jobs among programs that only note how they were called, see ``fake_freebsd``."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import fake_freebsd
import pytest
import sandbox_runs
import trio
from fake_freebsd import SNAPSHOT, FreeBSD
from fake_programs import read_calls
from worker_program import DEADLINE

from builder.model import Aborted, Exited, Signalled, wire_signal
from builder_worker.build import Setup
from builder_worker.choice import choose, prove
from builder_worker.sandbox import ExitStatus, Limits, SandboxError, Task, owner
from builder_worker.sandbox.freebsd.clone import parent_of
from builder_worker.sandbox.options import Bind, Cache, OptionError, Options

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="jails are made by root")

GONE = 2**22 + 1
"""No process has this number: it is above the highest that there can be."""


@pytest.fixture
def freebsd(tmp_path: Path) -> FreeBSD:
    return fake_freebsd.make(tmp_path)


DISK = "FAKE/work/TAG/disk"
DATASET = "zroot/builder/TAG"
CLONE = f"zfs clone -o mountpoint={DISK} -o atime=off -o setuid=off {SNAPSHOT} {DATASET}"
DEVICES = f"mount -t devfs -o ruleset=4 devfs {DISK}/dev"
PARAMETERS = (
    "persist children.max=0 enforce_statfs=2 securelevel=3 host.hostname=builder sysvmsg=new sysvsem=new sysvshm=new "
    "allow.noset_hostname allow.noraw_sockets allow.nochflags allow.nomount allow.noquotas allow.noread_msgbuf "
    "allow.nosocket_af allow.nomlock allow.noreserved_ports"
)
CREATE = f"jail -q -c name=TAG path={DISK} ip4=disable ip6=disable {PARAMETERS}"
INNER = '\numask 022\nulimit -c 0\nulimit -u "$1" 2>/dev/null\nshift\n. /.builder-environment\ncd /build && unset OLDPWD && exec "$@"\n'
JEXEC = f"jexec -U nobody TAG /usr/bin/env -i /bin/sh -c {INNER} sh 2048 /bin/sh /build/.builder-script".splitlines()
IS_THERE = "jls -j TAG jid"
END = [IS_THERE, "jail -R TAG", "pkill -KILL -j 7", "rctl -r jail:TAG"]
DESTROY = [f"zfs list -H -o name {DATASET}", f"zfs destroy -r -f {DATASET}"]
REMOVE = [f"umount -f {DISK}/dev", *DESTROY]

SHOW = b"""
pwd
id -u
id -g
umask
ls -a /build
stat -c '%u %a' /build /build-home /.builder-environment
env | grep -v ^PWD= | sort
echo content >file
echo home >"$HOME/file"
test ! -e /etc/shadow
"""


async def test_a_job_runs_in_a_jail_on_a_clone_of_its_own(freebsd: FreeBSD) -> None:
    uuid = uuid4()
    finished = await freebsd.run(SHOW, uuid=uuid)
    assert finished.result == Exited(code=0)
    assert [os.fsdecode(line) for line in finished.own_lines] == [
        *("/build", "65534", "65534", "0022", ".", "..", ".builder-script"),
        *("65534 755", "65534 755", "65534 400"),
        *("BUILDER_JOB=job", "BUILDER_PLATFORM=freebsd-14", f"BUILDER_UUID={uuid}", 'GIVEN=it\'s "$(so)"'),
        *("HOME=/build-home", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        *("SOURCE_DATE_EPOCH=0", "TZ=UTC"),
    ]
    assert finished.artifacts == {b"file": b"content\n"}
    assert freebsd.calls(uuid) == [CLONE, DEVICES, CREATE, *JEXEC, *END, IS_THERE, *REMOVE]
    assert freebsd.left == []


async def test_what_the_operator_shares_and_limits_is_in_the_command_lines(freebsd: FreeBSD, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/tool").write_text("shared\n")
    jail = freebsd.jail(
        network=True,
        binds=(Bind(source=tmp_path / "tools", target="/opt/tools"),),
        caches=(Cache(name="ccache", target="/build/deep/cache"),),
    )
    uuid = uuid4()
    limits = Limits(memory=2**30, pids=100, cpus=1.5, work_size=2**22)
    script = b"cat /opt/tools/tool; echo kept >deep/cache/kept; cat /etc/resolv.conf >resolv"
    finished = await freebsd.run(script, jail=jail, limits=limits, uuid=uuid)
    assert finished.result == Exited(code=0)
    assert finished.own_lines == [b"shared"]
    assert finished.artifacts == {b"resolv": Path("/etc/resolv.conf").read_bytes()}
    cache = freebsd.work_root / "caches/freebsd-14/ccache"
    assert (cache / "kept").read_text() == "kept\n"
    assert freebsd.calls(uuid) == [
        CLONE.replace("setuid=off", "setuid=off -o quota=4194304"),
        DEVICES,
        f"mount_nullfs -o ro,nosuid FAKE/tools {DISK}/opt/tools",
        f"mount_nullfs -o nosuid FAKE/work/caches/freebsd-14/ccache {DISK}/build/deep/cache",
        CREATE.replace("disable", "inherit"),
        "rctl -a jail:TAG:memoryuse:log=1073741824",
        "rctl -a jail:TAG:memoryuse:sigkill=1073741824",
        "rctl -a jail:TAG:maxproc:deny=100",
        "rctl -a jail:TAG:nthr:deny=100",
        "rctl -a jail:TAG:pcpu:deny=150",
        *(line.replace("2048", "unlimited") for line in JEXEC),
        *END,
        "dmesg",
        IS_THERE,
        f"umount -f {DISK}/build/deep/cache",
        f"umount -f {DISK}/opt/tools",
        *REMOVE,
    ]
    assert freebsd.left == []


@pytest.mark.parametrize(
    ("script", "result"),
    [
        (b"exit 3", Exited(code=3)),
        (b"exit 137", Exited(code=137)),
        (b"kill -TERM $$", Signalled(signal=wire_signal(signal.SIGTERM))),
        (b"kill -KILL $$", Signalled(signal=wire_signal(signal.SIGKILL))),
    ],
)
async def test_the_status_is_the_script_s_own(freebsd: FreeBSD, script: bytes, result: object) -> None:
    finished = await freebsd.run(script, uuid=uuid4())
    assert finished.result == result
    assert freebsd.left == []


async def test_a_script_is_run_by_its_first_line(freebsd: FreeBSD) -> None:
    finished = await freebsd.run(b"#!/usr/bin/perl\nprint 6 * 7, qq(\\n);", uuid=uuid4())
    assert finished.own_lines == [b"42"]
    finished = await freebsd.run(b"#!/no/such/program\n", uuid=uuid4())
    assert finished.result == Exited(code=127)
    assert "the first line of the script names /no/such/program, which is no program here" in finished.remarks


async def test_a_job_that_takes_too_long_ends_with_all_of_its_jail(freebsd: FreeBSD) -> None:
    uuid = uuid4()
    freebsd.order("pkill--j", "once\ntwice\n")
    finished = await freebsd.run(b"trap '' TERM; echo begun; sleep 1000", limits=Limits(timeout=0.5), uuid=uuid)
    assert finished.result == Aborted(message="time limit of 0.5 s exceeded")
    assert finished.own_lines == [b"begun"]
    kill = "pkill -KILL -j 7"
    assert freebsd.calls(uuid)[-len(END) - len(REMOVE) - 3 :] == [*END[:2], kill, kill, *END[2:], IS_THERE, *REMOVE]
    assert freebsd.left == []


@pytest.mark.parametrize(
    ("noted", "result"),
    [
        ("jail:{tag}:memoryuse:log=1048576/jail", Aborted(message="out of memory (limit 1 MiB)")),
        ("jail:{tag}x:memoryuse:log=1048576/jail", Exited(code=9)),
        ("jail:{tag}:maxproc:deny=5/jail", Exited(code=9)),
    ],
)
async def test_a_job_without_memory_is_told_by_what_the_kernel_noted(
    freebsd: FreeBSD, noted: str, result: object
) -> None:
    uuid = uuid4()
    rule = noted.format(tag=owner.tag(str(uuid)))
    (freebsd.root / "state/dmesg").write_text(f'rctl: rule "{rule}" matched by pid 9 (cc), uid 65534, jail x\n')
    finished = await freebsd.run(b"exit 9", limits=Limits(memory=2**20), uuid=uuid)
    assert finished.result == result
    finished = await freebsd.run(b"exit 0", limits=Limits(memory=2**20), uuid=uuid)
    assert finished.result == (Exited(code=0) if isinstance(result, Exited) else result), "a build with a hole in it"


async def test_a_clone_that_is_full_is_told(freebsd: FreeBSD) -> None:
    script = b"head -c 9000000 /dev/zero >/tmp/f; exit 3"
    finished = await freebsd.run(script, limits=Limits(work_size=2**22), uuid=uuid4())
    assert finished.result == Aborted(message="work directory full (limit 4 MiB)")
    finished = await freebsd.run(b"head -c 900000 /dev/zero >f; exit 3", limits=Limits(work_size=2**22), uuid=uuid4())
    assert finished.result == Exited(code=3)
    assert freebsd.left == []


@pytest.mark.parametrize(
    ("fails", "message", "calls"),
    [
        ("zfs-clone", "zfs failed: zfs: device busy", [CLONE, DESTROY[0]]),
        ("mount-devfs", "mount failed: mount: device busy", [CLONE, DEVICES, *REMOVE]),
        ("jail-create", "jail failed: jail: device busy", [CLONE, DEVICES, CREATE, IS_THERE, *REMOVE]),
        (
            "rctl-rule",
            "rctl failed: rctl: device busy",
            [CLONE, DEVICES, CREATE, "rctl -a jail:TAG:maxproc:deny=9", *END, *REMOVE],
        ),
    ],
)
async def test_what_can_not_be_made_is_undone_and_told(
    freebsd: FreeBSD, fails: str, message: str, calls: list[str]
) -> None:
    uuid = uuid4()
    freebsd.order(fails)
    finished = await freebsd.run(b"echo never", limits=Limits(pids=9), uuid=uuid)
    assert finished.result == Aborted(message=f"the worker failed: {message}")
    assert finished.own_lines == []
    assert freebsd.calls(uuid) == calls
    assert freebsd.left == []


async def test_a_clone_that_is_busy_for_a_while_is_destroyed_in_the_end(freebsd: FreeBSD) -> None:
    uuid = uuid4()
    freebsd.order("zfs-destroy", "1\n2\n3\n")
    finished = await freebsd.run(b"true", uuid=uuid)
    assert finished.result == Exited(code=0)
    assert freebsd.calls(uuid)[-5:] == [DESTROY[0], *[DESTROY[1]] * 4]
    assert freebsd.left == []


async def test_a_clone_that_stays_busy_is_named(freebsd: FreeBSD, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder_worker.sandbox.freebsd.clone.DESTROY_TIMEOUT", 0.2)
    freebsd.order("zfs-destroy", "again\n" * 1000)
    task = Task(uuid=uuid4(), name="job", platform="p", script=b"true")
    sandbox = await freebsd.jail().open(task)
    with pytest.raises(SandboxError, match=f"cannot destroy zroot/builder/{owner.tag(str(task.uuid))}, do it by hand"):
        await sandbox.aclose()


@pytest.mark.parametrize("name", ["../../etc", "a b;reboot", "$(reboot)", "-r", "@base", "x" * 128, "é\x1b[2J"])
async def test_a_job_s_name_is_in_no_command_line(freebsd: FreeBSD, name: str) -> None:
    uuid = uuid4()
    finished = await freebsd.run(b'printf "%s\\n" "$BUILDER_JOB" >name', name=name, uuid=uuid)
    assert finished.result == Exited(code=0)
    assert finished.artifacts[b"name"].decode() == name.replace("\x1b", "\\x1b") + "\n"
    assert freebsd.calls(uuid) == [CLONE, DEVICES, CREATE, *JEXEC, *END, IS_THERE, *REMOVE]


async def test_a_link_in_the_snapshot_leads_nothing_out_of_the_clone(freebsd: FreeBSD, tmp_path: Path) -> None:
    uuid = uuid4()
    jail = freebsd.jail(binds=(Bind(source=tmp_path, target="/linked/x"),))
    finished = await freebsd.run(b"echo never", jail=jail, uuid=uuid)
    assert finished.result == Aborted(
        message="the worker failed: /linked/x leads through a link in the snapshot: take another place"
    )
    assert freebsd.calls(uuid) == [CLONE, DEVICES, *REMOVE]
    freebsd.order("linked-etc")
    finished = await freebsd.run(b"echo never", jail=freebsd.jail(network=True), uuid=uuid4())
    assert finished.result == Aborted(
        message="the worker failed: /etc leads through a link in the snapshot: take another place"
    )
    assert not list((tmp_path / "outside").iterdir())
    assert freebsd.left == []


# --- what a worker that is gone has left --------------------------------------------------------------------------------

DIES = """
import sys, trio
from pathlib import Path
from uuid import UUID
from builder_worker.sandbox import Task
from builder_worker.sandbox.backends.jail import Jail
from builder_worker.sandbox.options import Options

async def main(snapshot, work_root, path, fake, uuid, script, grace):
    jail = Jail(options=Options(image=snapshot, work_root=Path(work_root)), environment={"PATH": path, "FAKE": fake})
    task = Task(uuid=UUID(uuid), name="x", platform="x", script=script.encode(), worker_grace=float(grace))
    async with await jail.open(task) as sandbox:
        sandbox.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sandbox.wait)
            print((await sandbox.console.receive_some()).decode(), end="", flush=True)

trio.run(main, *sys.argv[1:])
"""


def _kill_worker(freebsd: FreeBSD, script: str, *, grace: float = 0.0) -> str:
    """Start a job, and kill its worker when it says something. Return the name of its things."""
    arguments = (SNAPSHOT, str(freebsd.work_root), freebsd.environment["PATH"], str(freebsd.root), str(uuid4()))
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with subprocess.Popen(
        [sys.executable, "-c", DIES, *arguments, script, str(grace)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    (name,) = (path.name for path in (freebsd.root / "state/datasets").iterdir())
    return name.rpartition("+")[2]


async def test_a_jail_is_adopted_by_the_next_worker_and_not_removed_before(freebsd: FreeBSD) -> None:
    name = _kill_worker(freebsd, "echo begun; until [ -e go ]; do sleep 0.01; done; echo >file; exit 3", grace=60)
    assert await freebsd.jail().clean_up() == ()
    with trio.fail_after(DEADLINE):
        async with await freebsd.jail().adopt(freebsd.work_root / name) as sandbox:
            (sandbox.work / "go").touch()
            assert await sandbox.wait() == ExitStatus(code=3)
            assert await sandbox.console.receive_some() == b"begun\n"
            assert (sandbox.work / "file").exists()
    assert freebsd.left == []


async def test_what_a_killed_worker_leaves_ends_with_it_and_its_clone_at_the_next_start(freebsd: FreeBSD) -> None:
    name = _kill_worker(freebsd, "echo begun; exec sleep 1000")
    sandbox_runs.wait_gone(sandbox_runs.processes_with(name))  # the supervisor
    disk = DISK.replace("TAG", name)
    assert read_calls(freebsd.root)[-len(END) :] == [call.replace("TAG", name) for call in END]
    (freebsd.root / "calls").unlink()
    removed = await freebsd.jail().clean_up()
    assert removed == (f"removed the clone {name}",)
    assert freebsd.calls() == [
        "jls name",
        "zfs list -H -d 1 -t filesystem -o name,origin,mountpoint zroot/builder",
        f"umount -f {disk}/dev",
        *(call.replace("TAG", name) for call in DESTROY),
    ]
    assert freebsd.left == []


def _leave(freebsd: FreeBSD, name: str, *, origin: str = SNAPSHOT, mountpoint: str | None = None) -> None:
    """Leave a jail and a clone."""
    for kind in ("jails", "datasets"):
        (freebsd.root / "state" / kind).mkdir(exist_ok=True)
    (freebsd.root / "state/jails" / name).write_text("/x\n")
    where = mountpoint or f"{freebsd.work_root}/{name}/disk"
    (freebsd.root / "state/datasets" / f"zroot+builder+{name}").write_text(f"zroot/builder/{name}\t{origin}\t{where}\n")


async def test_jails_of_workers_that_are_gone_are_removed_with_their_clones(freebsd: FreeBSD) -> None:
    name = f"builder-{GONE}-1-{uuid4()}"
    _leave(freebsd, name)
    (freebsd.root / "state/mounts").touch()
    assert await freebsd.jail().clean_up() == (f"removed the jail {name}", f"removed the clone {name}")
    assert freebsd.calls()[2:6] == [call.replace("TAG", name) for call in END]
    assert freebsd.left == []


@pytest.mark.parametrize(
    "name",
    [
        f"builder-{GONE}-1-not-a-uuid",
        f"x-builder-{GONE}-1-{UUID(int=1)}",
        f"builder-{GONE}-1-{UUID(int=1)}-x",
        f"builder-{GONE}-1-{UUID(int=1)}@base",
        "freebsd-14",
        f"builder-{GONE}-1-{UUID(int=1)}/below",
        owner.tag(str(UUID(int=1))),
    ],
    ids=["no uuid", "prefix", "suffix", "snapshot", "other", "deeper", "alive"],
)
async def test_nothing_else_is_ever_removed(freebsd: FreeBSD, name: str) -> None:
    _leave(freebsd, name.replace("/", "+"))
    path = freebsd.root / f"state/datasets/zroot+builder+{name.replace('/', '+')}"
    path.write_text(path.read_text().replace("+", "/"))
    assert await freebsd.jail().clean_up() == ()
    assert freebsd.calls() == ["jls name", "zfs list -H -d 1 -t filesystem -o name,origin,mountpoint zroot/builder"]


@pytest.mark.parametrize(
    "odd",
    [
        {"origin": "-"},
        {"mountpoint": "none"},
        {"mountpoint": "FAKE/elsewhere/NAME/disk"},
        {"mountpoint": "FAKE/work/NAME"},
        {"mountpoint": "FAKE/work/disk"},
        {"mountpoint": "FAKE/work/NAME/../NAME/disk"},
    ],
    ids=["no clone", "not mounted", "elsewhere", "higher", "above", "through .."],
)
async def test_a_dataset_of_our_name_that_we_did_not_make_is_left_alone(freebsd: FreeBSD, odd: dict[str, str]) -> None:
    """The places lie in the test's own directory: what it tries is to have the wrong thing removed."""
    name = f"builder-{GONE}-1-{uuid4()}"
    given = {key: text.replace("FAKE", str(freebsd.root)).replace("NAME", name) for key, text in odd.items()}
    (freebsd.root / "elsewhere" / name / "disk").mkdir(parents=True)
    _leave(freebsd, name, **given)
    assert await freebsd.jail().clean_up() == (f"removed the jail {name}",)
    assert not [call for call in freebsd.calls() if call.startswith(("zfs destroy", "umount"))]
    assert (freebsd.root / "elsewhere" / name / "disk").is_dir()


def test_ps_tells_where_there_is_no_proc_whether_a_worker_lives() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        started = owner.ask_ps(process.pid)
        assert started is not None
        assert owner.is_same(owner.ask_ps(process.pid), started)
        assert owner.is_same(str(int(started) - 60), started), "the clock was set"
        assert not owner.is_same(str(int(started) - 600), started), "another process with its number"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert owner.ask_ps(process.pid) is None, "nobody has asked yet how it ended"
    assert owner.ask_ps(process.pid) is None
    assert not owner.is_same(None, started)


# --- check --------------------------------------------------------------------------------------------------------------


def test_a_check_tells_which_limits_are_real(freebsd: FreeBSD) -> None:
    check = freebsd.jail().check()
    assert check.works, check.reason
    assert check.limits == {"work_size"}
    assert any("has not run on FreeBSD" in note for note in check.notes)
    assert any("kern.racct.enable=1" in note for note in check.notes)
    freebsd.order("kern.racct.enable", "1\n")
    check = freebsd.jail(network=True).check()
    assert check.limits == {"work_size", "memory", "pids", "cpus"}
    assert not any("racct" in note for note in check.notes)
    assert any("127.0.0.1" in note for note in check.notes)


@pytest.mark.parametrize(
    ("options", "orders", "reason", "remedy"),
    [
        ({"system": "Linux"}, {}, "it needs FreeBSD", "another sandbox"),
        ({"image": None}, {}, "it needs a zfs snapshot", "zfs snapshot"),
        ({"image": "alpine:latest"}, {}, "alpine:latest is no zfs snapshot", "DATASET@NAME"),
        ({"image": "-r@x"}, {}, "is no zfs snapshot", "DATASET@NAME"),
        ({"image": "zroot/x@y"}, {}, "there is no snapshot zroot/x@y", "zfs list -t snapshot"),
        ({"root": Path("/")}, {}, "no root tree", "--image"),
        ({}, {"security.jail.jailed": "1\n"}, "inside of a jail", "--sandbox none"),
        ({}, {"no-devices": ""}, "rules for devices", "service devfs restart"),
    ],
)
def test_a_check_tells_what_mends_it(
    freebsd: FreeBSD, options: dict[str, object], orders: dict[str, str], reason: str, remedy: str
) -> None:
    for name, text in orders.items():
        freebsd.order(name, text)
    check = freebsd.jail(**options).check()  # type: ignore[arg-type]
    assert not check.works
    assert reason in check.reason
    assert remedy in check.remedy


def test_a_check_names_the_program_that_is_missing(freebsd: FreeBSD) -> None:
    (freebsd.root / "bin/zfs").unlink()
    assert freebsd.jail().check().reason == "zfs is not installed"


def test_it_is_chosen_by_its_name_only_and_takes_an_image(tmp_path: Path) -> None:
    options = Options(image=SNAPSHOT, work_root=tmp_path)
    with pytest.raises(SandboxError, match="the sandbox jail does not work here: it needs FreeBSD"):
        choose("jail", options, one_job=False, container=None)
    with pytest.raises(OptionError, match="--sandbox jail"):
        choose("bubblewrap", options, one_job=False, container=None)


async def test_a_worker_proves_its_jails_before_it_takes_a_job(freebsd: FreeBSD) -> None:
    await prove(Setup(backend=freebsd.jail()), "freebsd-14")
    assert freebsd.left == []
    freebsd.order("jail-create")
    with pytest.raises(SandboxError, match="a job that does nothing fails in the sandbox: jail failed"):
        await prove(Setup(backend=freebsd.jail()), "freebsd-14")
    assert freebsd.left == []


@pytest.mark.parametrize(
    ("snapshot", "parent"),
    [
        ("zroot/builder/freebsd-14@base", "zroot/builder"),
        ("zroot/freebsd@1", "zroot"),
        ("zroot@x", "zroot"),
        ("a.b/c_d/e:f@g-h", "a.b/c_d"),
    ],
)
def test_clones_are_made_beside_the_snapshot_s_dataset(snapshot: str, parent: str) -> None:
    assert parent_of(snapshot) == parent


@pytest.mark.parametrize(
    "snapshot",
    [
        "",
        "zroot",
        "zroot/x",
        "@x",
        "zroot/x@",
        "zroot/x@a@b",
        "/zroot@x",
        "zroot//x@a",
        "a b@c",
        "-o@x",
        "a@b\n",
        "a@b/c",
    ],
)
def test_what_is_no_snapshot_is_refused(snapshot: str) -> None:
    with pytest.raises(SandboxError, match="is no zfs snapshot"):
        parent_of(snapshot)
