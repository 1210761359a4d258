"""The files for FreeBSD, run on any system with sh: against programs that note how they were called and play along.

What this can't show is that FreeBSD's own programs do what is expected of them. The fakes keep that little of a
system's state which the scripts look at: which clones and jails there are.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen
from fake_programs import make_programs, read_calls
from operators import ROOT, run, shellcheck

FREEBSD = ROOT / "freebsd"
WORKER = FREEBSD / "builder_worker.sh"
SNAPSHOT = "zroot/builder/freebsd-14@base"
CLONE = "zroot/builder/jobs/builder-freebsd-14-1"
JAIL = "builder-freebsd-14-1"
DEADLINE = 30.0

SCRIPTS = [
    WORKER,
    FREEBSD / "pkg/build.sh",
    FREEBSD / "rc.d/builder_server",
    FREEBSD / "rc.d/builder_web",
    FREEBSD / "rc.d/builder_worker",
    *sorted((ROOT / "debian").glob("builder-*/p*")),
]

PARTS = r"""
state() { printf '%s' "$1" | tr / + | sed "s|^|$FAKE/state/|"; }
fails() { [ -e "$FAKE/orders/$name-$1-fails" ]; }
for last; do :; done
case $name-$1 in
zfs-clone) ! fails clone && touch "$(state "$last")" && mkdir -p "$FAKE/root/etc" "$FAKE/root/dev" ;;
zfs-list) [ -e "$(state "$last")" ] ;;
zfs-get) echo "$FAKE/root" ;;
zfs-destroy) ! fails destroy && rm "$(state "$last")" ;;
jail--c) ! fails create && touch "$FAKE/state/${2#name=}" ;;
jail--R) rm "$FAKE/state/$2"; [ ! -e "$FAKE/pid" ] || kill -KILL "$(cat "$FAKE/pid")" ;;
jls--j) [ -e "$FAKE/state/$2" ] && echo 1 ;;
jexec-*)
    # The worker in the jail: ends with the next status of the list, or stays until the jail is removed.
    status=$(head -n 1 "$FAKE/orders/statuses")
    sed -i 1d "$FAKE/orders/statuses"
    [ "$status" != stays ] || { echo $$ >"$FAKE/pid"; : >"$FAKE/started"; exec /bin/sleep 3600; }
    exit "$status"
    ;;
rctl--a) ! fails rule ;;
umount-* | mount-* | cp-* | sleep-* | rctl-*) ;;
*) echo "the fake $name does not know: $*" >&2; exit 64 ;;
esac
"""

PROGRAMS = ("zfs", "jail", "jls", "jexec", "rctl", "mount", "umount", "cp", "sleep")


@frozen(kw_only=True)
class FreeBSD:
    """A directory with the fakes and what they remember."""

    root: Path
    environment: dict[str, str]

    @classmethod
    def make(cls, root: Path) -> "FreeBSD":
        return cls(root=root, environment=make_programs(root, PROGRAMS, PARTS))

    def order(self, *, statuses: str = "", fails: str = "") -> None:
        """Say how the workers in the jails end, one after the other, and which command fails."""
        (self.root / "orders/statuses").write_text("".join(f"{status}\n" for status in statuses.split()))
        if fails:
            (self.root / "orders" / f"{fails}-fails").touch()

    def leave(self, *, jail: bool) -> None:
        """Make what a script that was killed has left."""
        (self.root / "root/dev").mkdir(parents=True)
        (self.root / "root/etc").mkdir()
        (self.root / "state" / CLONE.replace("/", "+")).touch()
        if jail:
            (self.root / "state" / JAIL).touch()

    @property
    def calls(self) -> list[str]:
        return read_calls(self.root)

    @property
    def left(self) -> list[str]:
        """The clones and jails that there are."""
        return sorted(path.name for path in (self.root / "state").iterdir())

    def work(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(WORKER), *(arguments or ("freebsd-14", "1", SNAPSHOT))],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )


@pytest.fixture
def freebsd(tmp_path: Path) -> FreeBSD:
    return FreeBSD.make(tmp_path)


LOOK = [f"jls -j {JAIL} jid", f"zfs list -H -o name {CLONE}"]
CREATE = [
    f"zfs clone -o quota=20G -o atime=off {SNAPSHOT} {CLONE}",
    f"zfs get -H -o value mountpoint {CLONE}",
    "cp -f /etc/resolv.conf FAKE/root/etc/resolv.conf",
    "mount -t devfs -o ruleset=4 devfs FAKE/root/dev",
    f"jail -c name={JAIL} path=FAKE/root host.hostname=builder persist ip4=inherit ip6=inherit",
]
WORK = [f"jexec -l {JAIL} /usr/local/bin/builder-worker --sandbox none --remote 127.0.0.1:1234 freebsd-14"]
NO_CLONE = [f"zfs list -H -o name {CLONE}"]
DESTROY_CLONE = [
    f"zfs list -H -o name {CLONE}",
    f"zfs get -H -o value mountpoint {CLONE}",
    "umount -f FAKE/root/dev",
    f"zfs destroy -r -f {CLONE}",
]
DESTROY = [f"jls -j {JAIL} jid", f"jail -R {JAIL}", *DESTROY_CLONE]


def test_each_job_has_a_clone_and_a_jail_of_its_own(freebsd: FreeBSD) -> None:
    freebsd.order(statuses="0 0 2")
    assert freebsd.work().returncode == 2  # options that the worker refuses: no loop makes them right
    assert freebsd.calls == [*LOOK, *(CREATE + WORK + DESTROY) * 3]
    assert freebsd.left == []


def test_options_of_worker_and_jail_are_passed_on(freebsd: FreeBSD) -> None:
    freebsd.order(statuses="2")
    freebsd.work(
        *("freebsd-14", "1", SNAPSHOT, "--timeout", "60", "--env", "A=b c"),
        BUILDER_REMOTE="10.0.0.1:99",
        BUILDER_JAIL="ip4.addr=lo1|10.7.0.2",
        BUILDER_RCTL="memoryuse:deny=8g maxproc:deny=100",
        BUILDER_QUOTA="5G",
        BUILDER_CLONES="tank/jobs",
    )
    clone = f"tank/jobs/{JAIL}"
    assert [call for call in freebsd.calls if not call.startswith(("jls", "zfs get", "zfs list", "cp", "mount"))] == [
        f"rctl -r jail:{JAIL}",
        f"zfs clone -o quota=5G -o atime=off {SNAPSHOT} {clone}",
        f"jail -c name={JAIL} path=FAKE/root host.hostname=builder persist ip4.addr=lo1|10.7.0.2",
        f"rctl -a jail:{JAIL}:memoryuse:deny=8g",
        f"rctl -a jail:{JAIL}:maxproc:deny=100",
        (
            f"jexec -l {JAIL} /usr/local/bin/builder-worker --sandbox none --remote 10.0.0.1:99 "
            "--timeout 60 --env A=b c freebsd-14"
        ),
        f"jail -R {JAIL}",
        f"rctl -r jail:{JAIL}",
        "umount -f FAKE/root/dev",
        f"zfs destroy -r -f {clone}",
    ]


def test_the_clone_is_destroyed_when_the_job_fails_and_attempts_get_rarer(freebsd: FreeBSD) -> None:
    freebsd.order(statuses="3 137 0 5 2")
    freebsd.work()
    one = CREATE + WORK + DESTROY
    assert freebsd.calls == [*LOOK, *one, "sleep 1", *one, "sleep 2", *one, *one, "sleep 1", *one]
    assert freebsd.left == []


def test_the_longest_pause_is_a_minute(freebsd: FreeBSD) -> None:
    freebsd.order(statuses="3 " * 8 + "2")
    freebsd.work()
    pauses = [call for call in freebsd.calls if call.startswith("sleep")]
    assert pauses == [f"sleep {seconds}" for seconds in (1, 2, 4, 8, 16, 32, 60, 60)]


@pytest.mark.parametrize(
    ("fails", "done", "undone"),
    [
        ("zfs-clone", 1, [LOOK[0], *NO_CLONE]),
        ("jail-create", 5, [LOOK[0], *DESTROY_CLONE]),
        ("rctl-rule", 6, [*DESTROY[:2], f"rctl -r jail:{JAIL}", *DESTROY_CLONE]),
    ],
)
def test_a_jail_that_cannot_be_made_is_undone(freebsd: FreeBSD, fails: str, done: int, undone: list[str]) -> None:
    freebsd.order(fails=fails)
    (freebsd.root / "bin/sleep").write_text("#!/bin/sh\nkill -TERM $PPID\n")  # ends the script in its first pause
    rules = {"BUILDER_RCTL": "maxproc:deny=9"} if fails == "rctl-rule" else {}
    assert freebsd.work(**rules).returncode == 143
    made = [*CREATE, f"rctl -a jail:{JAIL}:maxproc:deny=9"][:done]
    calls = freebsd.calls[len(LOOK) + len(rules) :]
    assert calls[: done + len(undone)] == made + undone
    assert freebsd.left == []


@contextmanager
def working(freebsd: FreeBSD) -> Iterator[subprocess.Popen[bytes]]:
    """Run the script until the worker in its jail works."""
    freebsd.order(statuses="stays")
    os.mkfifo(freebsd.root / "started")
    process = subprocess.Popen(
        ["/bin/sh", str(WORKER), "freebsd-14", "1", SNAPSHOT], env=freebsd.environment, stdin=subprocess.DEVNULL
    )
    with process:
        try:
            (freebsd.root / "started").open("rb").close()  # blocks until the fake opens it too
            yield process
        finally:
            process.kill()
            pid = freebsd.root / "pid"
            if pid.exists() and (freebsd.root / "state" / JAIL).exists():
                os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_job_and_destroys_its_jail_and_clone(freebsd: FreeBSD, number: signal.Signals) -> None:
    with working(freebsd) as process:
        process.send_signal(number)
        assert process.wait(DEADLINE) == 143
    assert freebsd.calls == [*LOOK, *CREATE, *WORK, *DESTROY]
    assert freebsd.left == []


def test_what_a_killed_script_has_left_is_destroyed_at_the_next_start(freebsd: FreeBSD) -> None:
    with working(freebsd) as process:
        process.kill()
        process.wait(DEADLINE)
        assert freebsd.left == [JAIL, CLONE.replace("/", "+")]
        (freebsd.root / "calls").unlink()
        freebsd.order(statuses="2")
        freebsd.work()
    assert freebsd.calls == [*DESTROY, *CREATE, *WORK, *DESTROY]
    assert freebsd.left == []


def test_a_clone_without_its_jail_is_destroyed_at_the_next_start(freebsd: FreeBSD) -> None:
    freebsd.leave(jail=False)
    freebsd.order(statuses="2")
    freebsd.work()
    assert freebsd.calls == [LOOK[0], *DESTROY_CLONE, *CREATE, *WORK, *DESTROY]


def test_no_job_begins_where_the_last_one_cannot_be_destroyed(freebsd: FreeBSD) -> None:
    freebsd.leave(jail=True)
    freebsd.order(fails="zfs-destroy")
    assert freebsd.work().returncode == 1
    assert freebsd.calls == DESTROY


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("freebsd-14", "1"),
        ("", "1", SNAPSHOT),
        ("../x", "1", SNAPSHOT),
        ("-R", "1", SNAPSHOT),
        (".", "1", SNAPSHOT),
        ("a/b", "1", SNAPSHOT),
        ("a b", "1", SNAPSHOT),
        ("a\nb", "1", SNAPSHOT),
        ("a;reboot", "1", SNAPSHOT),
        ("$(reboot)", "1", SNAPSHOT),
        ("*", "1", SNAPSHOT),
        ("freebsd-14", "0", SNAPSHOT),
        ("freebsd-14", "1x", SNAPSHOT),
        ("freebsd-14", "", SNAPSHOT),
        ("freebsd-14", "1", ""),
        ("freebsd-14", "1", "zroot/builder/freebsd-14"),
        ("freebsd-14", "1", "zroot@a@b"),
        ("freebsd-14", "1", "@base"),
        ("freebsd-14", "1", "zroot/x@"),
        ("freebsd-14", "1", "-r@base"),
        ("freebsd-14", "1", "zroot/a b@base"),
    ],
)
def test_odd_names_are_refused_before_anything_is_run(freebsd: FreeBSD, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["/bin/sh", str(WORKER), *arguments],
        env=freebsd.environment,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"builder_worker.sh: ")
    assert freebsd.calls == []


@pytest.mark.parametrize(
    "setting", [{"BUILDER_CLONES": "-r"}, {"BUILDER_CLONES": "a b"}, {"BUILDER_QUOTA": "1 -o x=y"}]
)
def test_odd_settings_are_refused_before_anything_is_run(freebsd: FreeBSD, setting: dict[str, str]) -> None:
    assert freebsd.work(**setting).returncode == 2
    assert freebsd.calls == []


def test_names_of_jails_have_no_dots_and_differ_for_all_platforms(freebsd: FreeBSD) -> None:
    platforms = ["freebsd-14.2", "freebsd-14_2", "freebsd-14_.2", "freebsd-14._2", "freebsd-14__2", "freebsd-14_-2"]
    for platform in platforms:
        freebsd.order(statuses="2")
        freebsd.work(platform, "1", SNAPSHOT)
    names = [call.split()[2] for call in freebsd.calls if call.startswith("jail -c")]
    assert len(set(names)) == len(platforms)
    assert not any("." in name for name in names)


# --- rc.d ----------------------------------------------------------------------------------------------------------

RC_SUBR = r"""
# What the scripts use of FreeBSD's rc.subr, in the plainest form.
load_rc_config() { . "$FAKE/rc.conf"; }
warn() { echo "WARNING: $*" >&2; }
startmsg() { echo "$@"; }
check_pidfile() { [ ! -e "$1" ] || cat "$1"; }
wait_for_pids() { echo "waited for $*"; }
run_rc_command() {
    _arg=$1
    shift
    eval "_cmd=\${${_arg}_cmd:-}"
    eval "_pre=\${${_arg}_precmd:-}"
    [ -z "$_pre" ] || $_pre || return
    if [ -n "$_cmd" ]; then $_cmd "$@"; else eval "$command $command_args"; fi
}
"""

NOTE = '#!/bin/sh\nprintf "%s" "${0##*/}"\nfor word; do printf " [%s]" "$word"; done\necho\n'


Service = Callable[..., str]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """Run an rc script of ours with settings, and return what it said; programs with paths are looked up in PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "rc.subr").write_text(RC_SUBR)
    for name in ("daemon", "install", "kill", "pgrep", "su"):
        (tmp_path / "bin" / name).write_text(NOTE)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "bin/builder-worker").write_text(f'{NOTE}[ ! -e "$FAKE/broken" ]\n')
    (tmp_path / "bin/builder-worker").chmod(0o755)
    (tmp_path / "bin/pgrep").write_text('#!/bin/sh\necho "pgrep $*" >&2\necho 79\n')

    def call(name: str, settings: str, *arguments: str, pids: dict[str, int] | None = None) -> str:
        (tmp_path / "rc.conf").write_text(settings)
        for pidfile, pid in (pids or {}).items():
            (tmp_path / pidfile).write_text(f"{pid}\n")
        script = (FREEBSD / "rc.d" / name).read_text("utf-8")
        script = script.replace(". /etc/rc.subr", f'. {tmp_path}/rc.subr\nkill() {{ command kill "$@"; }}')
        script = script.replace("/usr/sbin/daemon", "daemon").replace("/var/run/builder_worker", str(tmp_path))
        script = script.replace("/usr/local/bin/builder-worker self-test", "builder-worker self-test")
        script = script.replace("command kill", f"{tmp_path}/bin/kill")
        return run(
            *("/bin/sh", "-c", script, name, *arguments),
            check=False,
            env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "FAKE": str(tmp_path)},
        ).replace(str(tmp_path), "FAKE")

    return call


def test_the_server_is_started_with_its_flags(service: Service) -> None:
    said = service("builder_server", 'builder_server_flags="--ip 10.0.0.1 -v"\n', "start")
    assert said.splitlines() == [
        "install [-d] [-o] [builder] [-g] [builder] [-m] [0750] [/var/db/builder]",
        "install [-d] [-o] [builder] [-g] [builder] [-m] [0755] [/var/run/builder]",
        (
            "daemon [-c] [-f] [-r] [-R] [5] [-P] [/var/run/builder_server.pid] [-S] [-T] [builder-server] [-t] "
            "[builder-server] [-u] [builder] [/usr/local/bin/builder-server] [--dir] [/var/db/builder] [--ip] [10.0.0.1] [-v]"
        ),
    ]


def test_the_site_is_started_with_a_database(service: Service) -> None:
    said = service("builder_web", 'builder_web_flags="--prefix /builds"\n', "start")
    assert said.splitlines() == [
        "install [-d] [-o] [builder_web] [-g] [builder_web] [-m] [0750] [/var/db/builder-web]",
        "su [-m] [builder_web] [-c] [/usr/local/bin/builder-db migrate --datadir /var/db/builder-web]",
        (
            "daemon [-c] [-f] [-r] [-R] [5] [-P] [/var/run/builder_web.pid] [-S] [-T] [builder-web] [-t] "
            "[builder-web] [-u] [builder_web] [/usr/local/bin/builder-web] [--datadir] [/var/db/builder-web] "
            "[--prefix] [/builds]"
        ),
    ]


WORKERS = """
builder_worker_platforms="freebsd-14 freebsd-13.2"
builder_worker_freebsd_14_slots=2
builder_worker_freebsd_13_2_snapshot=tank/old@7
builder_worker_freebsd_13_2_options="--timeout 60"
"""


def started(platform: str, slot: int, rest: str) -> list[str]:
    return [
        f"Starting builder_worker for {platform}, slot {slot}.",
        (
            f"daemon [-c] [-f] [-r] [-R] [60] [-P] [FAKE/{platform}.{slot}.pid] [-S] [-T] [builder-worker] [-t] "
            f"[builder_worker {platform} {slot}] [/usr/local/libexec/builder_worker.sh] [{platform}] [{slot}] {rest}"
        ),
    ]


def test_workers_are_started_for_each_platform_and_slot(service: Service) -> None:
    said = service("builder_worker", WORKERS, "start")
    assert said.splitlines() == [
        "install [-d] [-m] [0755] [FAKE]",
        *started("freebsd-14", 1, "[zroot/builder/freebsd-14@base]"),
        *started("freebsd-14", 2, "[zroot/builder/freebsd-14@base]"),
        *started("freebsd-13.2", 1, "[tank/old@7] [--timeout] [60]"),
    ]


def test_a_worker_outside_of_its_jails_is_started_with_the_same_settings(service: Service) -> None:
    said = service("builder_worker", WORKERS + "builder_worker_sandbox=jail\n", "start", "freebsd-13.2")
    assert said.splitlines()[2] == (
        "daemon [-c] [-f] [-r] [-R] [60] [-P] [FAKE/freebsd-13.2.1.pid] [-S] [-T] [builder-worker] [-t] "
        "[builder_worker freebsd-13.2 1] [/usr/local/bin/builder-worker] [--loop] [--sandbox] [jail] "
        "[--image] [tank/old@7] [--timeout] [60] [freebsd-13.2]"
    )


def test_a_worker_outside_of_its_jails_leaves_them_to_the_next_one(service: Service) -> None:
    settings = WORKERS + "builder_worker_sandbox=jail\n"
    said = service("builder_worker", settings, "restart", "freebsd-13.2", pids={"freebsd-13.2.1.pid": 78})
    assert said.splitlines()[:6] == [
        "builder-worker [self-test] [--sandbox] [jail] [--image] [tank/old@7] [--timeout] [60] [freebsd-13.2]",
        *("pgrep -P 78", "kill [-KILL] [78]", "kill [-USR1] [79]", "waited for 78 79"),
        "Starting builder_worker for freebsd-13.2, slot 1.",
    ]
    said = service("builder_worker", WORKERS, "restart", "freebsd-13.2", pids={"freebsd-13.2.1.pid": 78})
    assert said.splitlines()[1:3] == ["kill [-TERM] [78]", "waited for 78"], "a worker in a jail ends with it"


def test_a_worker_is_not_restarted_with_a_release_that_does_not_work(service: Service, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    settings = WORKERS + "builder_worker_sandbox=jail\n"
    said = service("builder_worker", settings, "restart", "freebsd-13.2", pids={"freebsd-13.2.1.pid": 78})
    assert said.splitlines()[1:] == [
        "WARNING: builder_worker for freebsd-13.2, slot 1, is not restarted, and goes on as it was: mend what is wrong first"
    ]
    assert (tmp_path / "freebsd-13.2.1.pid").exists()


def test_one_platform_can_be_started_and_what_runs_is_left_alone(service: Service) -> None:
    said = service("builder_worker", WORKERS, "start", "freebsd-14", pids={"freebsd-14.1.pid": 77})
    assert said.splitlines()[1:] == started("freebsd-14", 2, "[zroot/builder/freebsd-14@base]")


def test_workers_are_stopped_and_waited_for(service: Service) -> None:
    said = service("builder_worker", WORKERS, "stop", pids={"freebsd-14.2.pid": 77, "freebsd-13.2.1.pid": 78})
    assert said.splitlines() == [
        *("Stopping builder_worker for freebsd-14, slot 2.", "kill [-TERM] [77]", "waited for 77"),
        *("Stopping builder_worker for freebsd-13.2, slot 1.", "kill [-TERM] [78]", "waited for 78"),
    ]


def test_odd_platforms_and_slots_start_nothing(service: Service) -> None:
    said = service(
        "builder_worker", 'builder_worker_platforms="../x ok"\nbuilder_worker_ok_slots="1;reboot"\n', "start"
    )
    assert said.splitlines()[1:] == [
        "WARNING: not a platform: ../x",
        "WARNING: not a number of slots from 1 to 99: 1;reboot",
    ]


# --- the package ---------------------------------------------------------------------------------------------------


def test_the_package_is_made_of_what_is_installed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fakes = {
        # A Python whose venv has a pip that installs one module, and a page.
        "python": f"""#!/bin/sh
case "$1 $2" in
"-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
"-m pip") while [ "$1" != --target ]; do shift; done
  mkdir -p "$2/bin" "$2/share/man/man1"; echo page >"$2/share/man/man1/page.1"; echo 'main = 1' >"$2/module.py" ;;
*) exec {shlex.quote(sys.executable)} "$@" ;;
esac
""",
        "pkg": """#!/bin/sh
case "$1 $2" in
"config ABI") echo FreeBSD:14:amd64; exit ;;
"query %v") echo "1.$3"; exit ;;
esac
echo "$@" >"$FAKE/call"; cp "$3/+MANIFEST" "$5" "$FAKE"; cp -R "$7" "$FAKE/stage"
""",
    }
    for name, text in fakes.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "FAKE": str(tmp_path)}
    run("/bin/sh", FREEBSD / "pkg/build.sh", tmp_path / "out", tmp_path / "bin/python", env=environment)

    assert re.fullmatch(r"create -m \S+ -p \S+ -r \S+ -o \S+/out", (tmp_path / "call").read_text().strip())
    manifest = json.loads((tmp_path / "+MANIFEST").read_text())
    minor = sys.version_info.minor
    assert (manifest["name"], manifest["abi"], "%%" in str(manifest)) == ("builder", "FreeBSD:14:amd64", False)
    versions = {name: dependency["version"] for name, dependency in manifest["deps"].items()}
    assert versions == {name: f"1.{name}" for name in (f"python3{minor}", f"py3{minor}-sqlite3")}
    listed = {line.rpartition(" ")[2] for line in (tmp_path / "plist").read_text().splitlines()}
    stage = tmp_path / "stage/usr/local"
    assert listed == {str(path.relative_to(stage)) for path in stage.rglob("*") if path.is_file()}
    assert {
        *(f"bin/{name}" for name in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]),
        "etc/rc.d/builder_worker",
        "etc/rc.d/builder_web",
        "libexec/builder_worker.sh",
        "lib/builder/module.py",
        "share/man/man1/page.1.gz",
    } <= listed
    assert "@sample(root,wheel,600) etc/builder/server.env.sample" in (tmp_path / "plist").read_text()
    assert "@sample(root,wheel,600) etc/builder/web.env.sample" in (tmp_path / "plist").read_text()
    program = (stage / "bin/builder-server").read_text()
    assert program.startswith(f"#!/usr/local/bin/python3.{minor} -I\n")
    assert '"/usr/local/lib/builder"' in program
    assert 'run("builder_server.cli")' in program


# --- all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_finds_nothing(script: Path) -> None:
    assert shellcheck(script) == ""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_can_be_run_and_parsed(script: Path) -> None:
    assert script.read_bytes().startswith(b"#!/bin/sh\n")
    assert "debian" in script.parts or os.access(script, os.X_OK)  # packages are given their modes when they are built
    run("/bin/sh", "-n", script)


def test_scripts_say_that_they_have_not_run_on_freebsd() -> None:
    for path in [*FREEBSD.rglob("*.sh"), *(FREEBSD / "rc.d").iterdir(), FREEBSD / "jail.conf.sample"]:
        assert "has not run on FreeBSD" in path.read_text("utf-8").replace("\n# ", " "), path
