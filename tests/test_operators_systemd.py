"""The files for systemd: right for systemd itself, rated for what they expose, and true to the programs they start."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from farm import PACKAGES
from operators import ROOT, need, run

SYSTEMD = ROOT / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
WORKER = SYSTEMD / "builder-worker@.service"
ROOM = SYSTEMD / "builder-worker-room@.service"
PROGRAMS = [unit for unit in UNITS if unit != ROOM]
"""The units that run a program of ours."""

OK = 5.0
"""Where systemd-analyze's "OK" ends and "MEDIUM" begins."""

MODULES = {
    name: name.replace("-", "_") for name in ("builder-provision", "builder-server", "builder-web", "builder-worker")
}


def installed(unit: Path) -> Path:
    """Return where a unit with this file name is, by the name of an instance if it is a template."""
    return unit.with_name(unit.name.replace("@.", "@debian-12."))


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A root directory with all units, and with programs where they expect them."""
    units = tmp_path / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(unit, units)
    (units / "docker.service").write_text("[Service]\nExecStart=/usr/bin/docker\n")
    (tmp_path / "usr/bin").mkdir()
    for name in ("builder-provision", "builder-server", "builder-worker", "builder-web", "builder-db", "docker"):
        (tmp_path / "usr/bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "usr/bin" / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_finds_no_fault(unit: Path, system: Path) -> None:
    need("systemd", ["systemd-analyze"])
    units = system / "usr/lib/systemd/system"
    for path in units.glob("builder*"):
        path.write_text(path.read_text("utf-8").replace("/usr/bin/", f"{system}/usr/bin/"))
    said = run(
        *("systemd-analyze", "verify", "--man=no", installed(units / unit.name)),
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{units}:"},
    )
    assert "builder" not in said, said  # the machine's own units may have faults


def test_the_sockets_that_the_server_is_handed(system: Path) -> None:
    need("systemd", ["systemd-analyze"])
    units = system / "usr/lib/systemd/system"
    shutil.copy(SYSTEMD / "builder-server.socket", units)
    for path in units.glob("builder*"):
        path.write_text(path.read_text("utf-8").replace("/usr/bin/", f"{system}/usr/bin/"))
    said = run(
        *("systemd-analyze", "verify", "--man=no", units / "builder-server.socket"),
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{units}:"},
    )
    assert "builder" not in said, said


def exposure(unit: Path) -> float:
    """Return systemd's own figure, from 0 to 10."""
    need("systemd", ["systemd-analyze"])
    said = run("systemd-analyze", "security", "--offline=yes", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+) ", said)
    assert found, said
    return float(found[1])


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_hardening_is_rated_ok_or_better(unit: Path) -> None:
    assert exposure(unit) < OK


def test_a_worker_as_root_is_rated_medium_as_its_file_says(system: Path) -> None:
    units = system / "usr/lib/systemd/system"
    drop_in = units / f"{WORKER.name}.d/root.conf"
    drop_in.parent.mkdir()
    shutil.copy(SYSTEMD / "builder-worker-root.conf", drop_in)
    assert OK <= exposure(units / WORKER.name) < 6
    assert "rates it MEDIUM" in drop_in.read_text("utf-8")


def settings(unit: Path) -> dict[str, list[str]]:
    """Return the settings of a unit, each with all its values."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text("utf-8").replace("\\\n", " ").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def option(words: list[str], name: str) -> float:
    return float(words[words.index(name) + 1])


@pytest.mark.parametrize("unit", PROGRAMS, ids=lambda path: path.name)
def test_the_programs_know_the_options(unit: Path) -> None:
    (command,) = settings(unit)["ExecStart"]
    words = [word.replace("%i", "debian-12") for word in shlex.split(command) if not word.startswith("$")]
    name = next(word.rpartition("/")[2] for word in words if word.rpartition("/")[2].partition(":")[0] in MODULES)
    arguments = words[next(index for index, word in enumerate(words) if word.endswith(name)) + 1 :]
    path = ":".join(map(str, PACKAGES))
    run("python3", "-m", MODULES[name.partition(":")[0]], *arguments, "--help", env=python_environment(path))


def python_environment(path: str) -> dict[str, str]:
    return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": path}


@pytest.mark.parametrize(
    "name",
    ["builder-provision.service", "builder-server.service", "builder-web.service", "builder-worker@.service"],
)
def test_a_program_says_itself_when_it_is_up(name: str) -> None:
    given = settings(SYSTEMD / name)
    assert (given["Type"], given["TimeoutStartSec"]) == (["notify"], ["infinity"])
    for families in given["RestrictAddressFamilies"]:
        assert "AF_UNIX" in families.split()


def test_a_worker_may_drain_before_it_is_killed() -> None:
    (command,) = settings(WORKER)["ExecStart"]
    (patience,) = settings(WORKER)["TimeoutStopSec"]
    assert float(patience) > option(shlex.split(command), "--drain-timeout")


def test_a_restart_of_a_worker_ends_no_job() -> None:
    given = settings(WORKER)
    assert (given["KillMode"], given["RestartKillSignal"]) == (["process"], ["SIGUSR1"])
    assert all(ROOM.name.replace("@", "@%i") in given[name][0].split() for name in ("Wants", "After"))


@pytest.mark.parametrize(
    ("enabled", "subgroup", "written"),
    [("cpu memory pids", "", "-cpu -memory -pids"), ("", "", ""), ("memory", "builder-worker", "memory")],
)
def test_room_is_made_beside_jobs_that_go_on(tmp_path: Path, enabled: str, subgroup: str, written: str) -> None:
    need("systemd", ["sed"])
    control = tmp_path / "unit/cgroup.subtree_control"
    control.parent.mkdir()
    control.write_text(f"{enabled}\n")
    (tmp_path / "systemctl").write_text(
        f'#!/bin/sh\ncase "$*" in *ControlGroup*@p1) echo /unit ;; *Subgroup*@p1) echo "{subgroup}" ;; esac\n'
    )
    (tmp_path / "systemctl").chmod(0o755)
    (command,) = settings(ROOM)["ExecStart"]
    script = shlex.split(command)[-1].replace("$$", "$").replace("%i", "p1").replace("/sys/fs/cgroup", str(tmp_path))
    # a file of the kernel is not emptied when it is opened
    script = script.replace(">$control", f">{tmp_path}/written")
    run("/bin/sh", "-c", script, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    found = tmp_path / "written"
    assert (found.read_text() if found.exists() else control.read_text()).strip() == written


def test_what_sandboxes_need_is_not_taken_away() -> None:
    given = settings(WORKER)
    assert given["Delegate"] == ["yes"]
    assert given["OOMPolicy"] == ["continue"]
    forbidden = {
        *("ProtectKernelTunables", "ProtectKernelLogs", "ProtectProc", "ProcSubset", "ProtectControlGroups"),
        *("ProtectHostname", "RestrictNamespaces", "PrivateUsers", "RestrictSUIDSGID", "LockPersonality"),
        "MemoryDenyWriteExecute",
    }
    assert not forbidden & given.keys()
    text = WORKER.read_text("utf-8")
    assert all(name in text for name in forbidden)  # each is left out for a reason, which is said


@pytest.mark.parametrize("unit", PROGRAMS, ids=lambda path: path.name)
def test_credentials_come_from_files_for_root(unit: Path) -> None:
    given = settings(unit)
    assert all(path.startswith("-/etc/builder/") for path in given["EnvironmentFile"])
    assert "://" not in " ".join(given["ExecStart"] + given.get("Environment", []))


def test_every_setting_in_the_samples_is_off() -> None:
    for path in [*SYSTEMD.glob("*.env"), *(ROOT / "freebsd").glob("*.env")]:
        assert all(not line or line.startswith("#") for line in path.read_text("utf-8").splitlines()), path


def test_users_and_directories_are_made(tmp_path: Path) -> None:
    need("systemd", ["systemd-sysusers", "systemd-tmpfiles"], root=True)
    (tmp_path / "etc").mkdir()
    for path in sorted((SYSTEMD / "sysusers.d").iterdir()):
        run("systemd-sysusers", f"--root={tmp_path}", path)
    users = {line.split(":")[0]: line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()}
    assert {"builder", "builder-provision", "builder-web", "builder-worker"} <= users.keys()
    for name in ("builder-server.conf", "builder-web.conf", "builder-worker.conf"):
        target = tmp_path / "usr/lib/tmpfiles.d" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SYSTEMD / "tmpfiles.d" / name, target)
        run("systemd-tmpfiles", f"--root={tmp_path}", "--create", name)
    made = (tmp_path / "var/lib/builder").stat()
    assert (made.st_uid, made.st_mode & 0o7777) == (int(users["builder"][2]), 0o750)
    made = (tmp_path / "var/lib/builder-web").stat()
    assert (made.st_uid, made.st_mode & 0o7777) == (int(users["builder-web"][2]), 0o750)
    made = (tmp_path / "var/lib/builder-worker/jobs").stat()
    assert (made.st_uid, made.st_mode & 0o7777) == (int(users["builder-worker"][2]), 0o711)
