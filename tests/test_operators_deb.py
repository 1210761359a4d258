"""The Debian packages: built twice alike, clean for lintian, and lived with: installed in a fresh system, run, removed.

That is done twice, without systemd running, as in a container, and with it. All of it takes about a minute, a third of
which is a minimal Debian from the machine's own mirror, made once a day.
"""

import datetime as dt
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import field, frozen
from operators import ROOT, need, run

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("deb")]  # they share what takes long

NAMES = ("builder-common", "builder-server", "builder-worker", "builder-web", "builder-provision", "builder-client")

DEADLINE = 60.0
"""Seconds for any step in the tree."""

DEPENDENCIES = ("python3", "systemd-sysv", "bubblewrap")
"""What the packages want from the distribution; see their control files."""

SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list.d/ubuntu.sources")
"""Where a release says which mirror it uses; if neither is there, mmdebstrap knows one."""

CHANGED_BY_USERS = frozenset({"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/.pwd.lock"})
"""Files that come with a new user; the user stays after a purge."""


def build(output: Path, *, umask: int) -> list[Path]:
    need("deb", ["dpkg-deb", "/usr/bin/python3"], python="/usr/bin/python3")
    run(sys.executable, ROOT / "debian/build.py", "--output", output, "--compression", "0", umask=umask)
    return [next(output.glob(f"{name}_*.deb")) for name in NAMES]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return build(tmp_path_factory.mktemp("packages"), umask=0o022)


def test_the_same_tree_makes_the_same_packages(packages: list[Path], tmp_path: Path) -> None:
    again = build(tmp_path, umask=0o077)
    assert [path.name for path in again] == [path.name for path in packages]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in packages]


def test_lintian_has_no_errors(packages: list[Path]) -> None:
    need("deb", ["lintian"])
    said = run("lintian", "--allow-root", "--fail-on", "error", "--show-overrides", *packages, check=False)
    assert not re.search(r"^E: ", said, re.MULTILINE), said
    assert "O: builder-common: unstripped-binary-or-object" in said  # it did look


def test_overrides_have_reasons() -> None:
    for path in (ROOT / "debian").glob("*/lintian-overrides"):
        lines = path.read_text("utf-8").splitlines()
        assert all(lines[index - 1].startswith("#") for index, line in enumerate(lines) if not line.startswith("#"))


def test_every_program_has_its_pages(packages: list[Path]) -> None:
    listed = "".join(run("dpkg-deb", "--contents", package) for package in packages)
    programs = set(re.findall(r"\./usr/bin/(\S+)", listed))
    assert set(re.findall(r"\./usr/share/man/man1/(\S+)\.1\.gz", listed)) == programs
    pages = set(re.findall(r"\./usr/share/man/man5/(\S+)\.5\.gz", listed))
    assert pages == {"builder-client.toml", "builder-provision.toml", "builder-schedule.toml", "builder-server.toml"}


def test_secrets_are_for_root_only(packages: list[Path]) -> None:
    listed = "".join(run("dpkg-deb", "--contents", package) for package in packages)
    modes = {line.split()[-1]: line.split()[0] for line in listed.splitlines()}
    assert {modes[f"./etc/builder/{name}.env"] for name in ("server", "worker", "web")} == {"-rw-------"}


@frozen(kw_only=True)
class System:
    """A minimal Debian in a directory, entered with a root of its own: unlike chroot, that lets jobs have sandboxes."""

    root: Path
    environment: dict[str, str] = field(factory=lambda: {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"})

    def enter(self, *command: str, user: str = "root") -> list[str]:
        become = () if user == "root" else ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
        mounts = ("--bind", str(self.root), "/", "--dev-bind", "/dev", "/dev", "--bind", "/proc", "/proc")
        return ["bwrap", *mounts, "--cap-add", "ALL", "--die-with-parent", *become, *command]

    def run(self, *command: str, user: str = "root") -> str:
        return run(*self.enter(*command, user=user), deadline=DEADLINE, env=self.environment)

    @contextmanager
    def running(self, *command: str, user: str) -> Iterator[str]:
        """Run a program until the block ends; the value is its first line. It must then end by itself on SIGTERM."""
        process = subprocess.Popen(
            self.enter("/bin/sh", "-c", 'echo $$; exec "$@"', "sh", *command, user=user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=self.environment,
        )
        with process:
            assert process.stdout
            try:
                pid, line = int(read_line(process)), read_line(process)
                yield line
                os.kill(pid, 15)  # bubblewrap itself hands no signals on
                assert process.wait(DEADLINE) == 0
            finally:
                process.kill()

    def files(self) -> set[str]:
        """Return the paths of all files, but those where programs keep notes about installations."""
        found = set()
        for directory, _, names in os.walk(self.root):
            where = os.path.relpath(directory, self.root)
            if where.split("/")[0] not in ("proc", "sys", "dev", "tmp", "run"):
                found.add(where)
                found.update(os.path.normpath(f"{where}/{name}") for name in names)
        notes = re.compile(r"var/log/|var/lib/dpkg/.*(-old|lock)$|var/lib/dpkg/(status|triggers)")
        return {path for path in found if not notes.match(path)} - CHANGED_BY_USERS

    def owner(self, path: str) -> str:
        return self.run("stat", "-c", "%U:%G %a", path).strip()


def read_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout
    line = b""
    while not line.endswith(b"\n"):  # byte by byte, so that nothing waits in a buffer that select does not know
        ready, _, _ = select.select([process.stdout], [], [], DEADLINE)
        data = os.read(process.stdout.fileno(), 1) if ready else b""
        assert data, f"nothing but {line!r}"
        line += data
    return line.decode()


def minimal_debian() -> Path:
    """Return an archive of a minimal system of this release, made once a day from the machine's mirror."""
    need("deb", ["mmdebstrap", "bwrap"], root=True)
    cache = Path(tempfile.gettempdir()) / f"builder-tests-{os.geteuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    assert cache.stat().st_uid == os.geteuid(), f"{cache} is someone else's"
    archive = cache / f"minbase-{dt.datetime.now(dt.UTC):%Y-%m-%d}.tar"
    if not archive.exists():
        for old in cache.glob("minbase-*.tar"):
            old.unlink()
        release = dict(
            line.split("=", 1) for line in Path("/etc/os-release").read_text("utf-8").splitlines() if "=" in line
        )
        unfinished = archive.with_suffix(f".{os.getpid()}.tar")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", f"--include={','.join(DEPENDENCIES)}"]
        command += [release["VERSION_CODENAME"].strip('"'), str(unfinished)]
        command += [path for path in SOURCES if Path(path).exists()]
        run(*command, deadline=300)
        unfinished.rename(archive)
    return archive


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    archive = minimal_debian()
    root = tmp_path / "root"
    root.mkdir()
    tmp_path.chmod(0o755)
    run("tar", "--extract", "--file", archive, "--directory", root, "--exclude=./dev/*")
    try:
        yield System(root=root)
    finally:
        shutil.rmtree(root)


def unit_command(system: System, unit: str, **replaced: str) -> list[str]:
    """Return what an installed unit starts."""
    text = (system.root / "lib/systemd/system" / unit).read_text("utf-8")
    command = next(line for line in text.splitlines() if line.startswith("ExecStart=")).removeprefix("ExecStart=")
    for name, value in replaced.items():
        command = command.replace({"options": "$BUILDER_WORKER_OPTIONS", "instance": "%i"}[name], value)
    return shlex.split(command)


def test_packages_live_in_a_fresh_system(packages: list[Path], system: System) -> None:
    before = system.files()
    for package in packages:
        shutil.copy(package, system.root / "var/tmp")
    paths = [f"/var/tmp/{package.name}" for package in packages]
    system.run("dpkg", "--install", *paths)
    assert (system.root / "usr/lib/builder/builder/__pycache__").is_dir()
    assert (system.root / "usr/share/man/man1/builder-client.1.gz").is_file()
    assert system.owner("/var/lib/builder") == "builder:builder 750"
    assert system.owner("/var/lib/builder-worker/jobs") == "builder-worker:builder-worker 711"
    (system.root / "etc/builder/server.env").write_text("BUILDER_SERVER_IP=127.0.0.1\n")
    system.run("dpkg", "--install", *paths)  # again, as an upgrade does
    assert (system.root / "etc/builder/server.env").read_text() == "BUILDER_SERVER_IP=127.0.0.1\n"

    run_a_job(system)
    run_the_site(system)

    system.run("dpkg", "--remove", *NAMES)
    left = system.files() - before
    assert not {path for path in left if path.startswith("usr/")}
    assert {"etc/builder/server.env", "var/lib/builder/builder.sqlite3"} <= left
    for path in paths:
        (system.root / path.lstrip("/")).unlink()
    system.run("dpkg", "--purge", *NAMES)
    system.run("dpkg", "--purge", *NAMES)  # nothing of it minds that it was done
    assert system.files() ^ before == set()


BOOT = r"""
set -ex
cd /var/tmp
dpkg --install ./*.deb
systemctl is-active builder-server builder-web
systemctl start builder-worker@debian
builder-client schedule greet debian job
until ls /var/lib/builder/greet/*/full; do sleep 0.1; done
builder-inspect --console --output out /var/lib/builder/greet/*/full
journalctl --no-pager --unit builder-worker@debian
dpkg --install ./*.deb
systemctl is-active builder-server builder-web
dpkg --purge builder-server builder-worker builder-web builder-provision builder-client builder-common
! systemctl is-active builder-server builder-web builder-worker@debian
echo all is well
"""

BOOT_UNIT = f"""
[Service]
Type=oneshot
ExecStart=/bin/sh /var/tmp/boot.sh
StandardOutput=file:/var/tmp/log
StandardError=inherit
TimeoutStartSec={DEADLINE:.0f}
ExecStopPost=/bin/systemctl poweroff --force
[Install]
WantedBy=multi-user.target
"""


def test_units_work_under_systemd(packages: list[Path], system: System) -> None:
    need("deb", ["systemd-nspawn"])
    for package in packages:
        shutil.copy(package, system.root / "var/tmp")
    (system.root / "var/tmp/job").write_text("#!/bin/sh\nid -un; hostname; printf hello > greeting\n")
    (system.root / "var/tmp/boot.sh").write_text(BOOT)
    (system.root / "etc/systemd/system/boot.service").write_text(BOOT_UNIT)
    system.run("systemctl", "enable", "boot.service")
    boot = ("systemd-nspawn", "--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe")
    # As on a real machine, nothing is mounted over parts of /proc: else no sandbox could have a /proc of its own.
    environment = {"PATH": os.environ["PATH"], "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"}
    said = run(*boot, f"--directory={system.root}", deadline=4 * DEADLINE, check=False, env=environment)
    log = system.root / "var/tmp/log"
    told = log.read_text("utf-8", "replace") if log.exists() else said
    assert told.endswith("all is well\n"), told
    assert "sandbox: bubblewrap" in told
    assert "\nbuilder\nbuilder\n" in told  # the user and the host name that a job has in a sandbox
    assert (system.root / "var/tmp/out/greeting").read_text() == "hello"


def run_the_site(system: System) -> None:
    """Run the site as its unit does."""
    assert system.owner("/var/lib/builder-web") == "builder-web:builder-web 750"
    system.run("builder-db", "migrate", "--datadir", "/var/lib/builder-web", user="builder-web")
    site = [*unit_command(system, "builder-web.service"), "--port=0"]
    with system.running(*site, user="builder-web") as announced:
        url = announced.strip().rpartition(" listening on ")[2]
        ask = f"import urllib.request; print(urllib.request.urlopen('{url}/healthz').read().decode())"
        assert system.run("python3", "-c", ask).strip() == "ok"


def run_a_job(system: System) -> None:
    """Run the server and a worker as their units do, and a job through them."""
    server = [*unit_command(system, "builder-server.service"), "--port=0"]
    with system.running(*server, user="builder") as announced:
        remote = announced.strip().rpartition(" listening on ")[2]
        (system.root / "var/tmp/job").write_text("#!/bin/sh\nprintf hello > greeting\necho built\n")
        client = ("builder-client", "--remote", remote)
        system.run(*client, "schedule", "greet", "debian", "/var/tmp/job")
        worker = unit_command(system, "builder-worker@.service", options=f"--remote {remote}", instance="debian")
        system.run(*(word for word in worker if word != "--loop"), user="builder-worker")
        assert '"greet"' in system.run(*client, "info", "--json")
    (full,) = (system.root / "var/lib/builder/greet").glob("*/full")
    shown = system.run("builder-inspect", "--console", "--output", "/var/tmp/out", f"/{full.relative_to(system.root)}")
    assert "built" in shown
    assert (system.root / "var/tmp/out/greeting").read_text() == "hello"
    shutil.rmtree(system.root / "var/tmp/out")
    (system.root / "var/tmp/job").unlink()
