"""templates/: each one is a sound script, refuses what it must, and leaves what builder-web expects."""

import os
import subprocess
from pathlib import Path

import pytest
from operators import shellcheck

TEMPLATES = Path(__file__).parent.parent / "templates"
NAMES = ["debian-12", "debian-13", "freebsd", "ubuntu-22.04", "ubuntu-24.04"]

# Whom the refusals are tested as: if one were missing, the script should not get to install packages here.
NOBODY = 65534 if os.getuid() == 0 else None

each = pytest.mark.parametrize("name", NAMES)


def template(name: str) -> str:
    return (TEMPLATES / f"orb-build.template.{name}").read_text("ascii")


def script(name: str, package: str = "retreat", platform: str = "p1") -> str:
    """Return the script as the server makes it."""
    return template(name).replace("%%OPAM_PACKAGE%%", package).replace("%%PLATFORM%%", platform)


def run(text: str, directory: Path, *, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-s"],
        input=text,
        cwd=directory,
        user=user,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_platforms() -> None:
    prefix = "orb-build.template."
    assert sorted(path.name.removeprefix(prefix) for path in TEMPLATES.glob(f"{prefix}*")) == NAMES


@each
def test_both_placeholders_are_there_once_and_quoted(name: str) -> None:
    assert template(name).count("'%%OPAM_PACKAGE%%'") == template(name).count("%%OPAM_PACKAGE%%") == 1
    assert template(name).count("'%%PLATFORM%%'") == template(name).count("%%PLATFORM%%") == 1
    assert template(name).startswith("#!/bin/sh\n")


@each
def test_the_shell_can_read_it(name: str) -> None:
    subprocess.run(["/bin/sh", "-n"], input=script(name).encode("ascii"), check=True, timeout=30)


@each
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    assert shellcheck("-", stdin=template(name).encode("ascii")) == ""


@pytest.mark.parametrize("name", ["debian-13", "ubuntu-22.04", "ubuntu-24.04"])
def test_debian_and_ubuntu_differ_in_the_release_alone(name: str) -> None:
    title = name.replace("-", " ").capitalize()
    assert template("debian-12").replace("debian-12", name).replace("Debian 12", title) == template(name)


@each
@pytest.mark.parametrize("package", ["", "a b", "-v", ".", "a/b", "a;b", "$(id)", "a\nb", "ä"])
def test_a_package_that_is_none_is_refused_first_of_all(name: str, package: str) -> None:
    done = run(script(name, package), Path("/"), user=NOBODY)
    assert done.returncode == 1
    assert "not the name of an opam package" in done.stderr
    assert done.stdout == ""


@each
def test_only_root_may_run_it(name: str) -> None:
    done = run(script(name), Path("/"), user=NOBODY)
    assert done.returncode == 1
    assert "this must be root" in done.stderr


# --- a whole run, with stand-ins for what would change the machine -------------------------------------------------

FAKES = {
    "id": "echo 0",
    "uname": "echo FreeBSD",
    "apt-get": 'echo "apt-get $*" >>"$LOG"',
    "pkg": 'echo "pkg $*" >>"$LOG"',
    "orb": """echo "orb $*" >>"$LOG"
        echo "$HOME $SOURCE_DATE_EPOCH $LC_ALL $TZ" >>"$LOG"
        mkdir -p bin doc/retreat
        echo elf >bin/retreat.hvt
        echo '# Retreat' >doc/retreat/README.md
        echo x | tee build-environment opam-switch system-packages >retreat.build-hashes""",
}


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    (tmp_path / "fakes").mkdir()
    for name, body in FAKES.items():
        fake = tmp_path / "fakes" / name
        fake.write_text(f"#!/bin/sh\nLOG={tmp_path}/log\n{body}\n")
        fake.chmod(0o755)
    (tmp_path / "work").mkdir()
    return tmp_path


def in_sandbox(text: str, sandbox: Path, release: str) -> str:
    """Return the script with the few paths that it fixes moved into the sandbox."""
    (sandbox / "os-release").write_text("ID={}\nVERSION_ID={}\n".format(*release.split("-")))
    for old, new in {
        "PATH=/usr/local/sbin": f"PATH={sandbox}/fakes:/usr/local/sbin",
        "/etc/os-release": f"{sandbox}/os-release",
        "/tmp/orb-home": f"{sandbox}/home",
        '"$(id -u)"': f'"$({sandbox}/fakes/id -u)"',
        "$(uname -s)": f"$({sandbox}/fakes/uname -s)",
    }.items():
        text = text.replace(old, new)
    return text


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@each
def test_a_build(name: str, sandbox: Path) -> None:
    release = "none-0" if name == "freebsd" else name
    text = in_sandbox(script(name, "retreat.1.0", "p1"), sandbox, release)
    done = run(text, sandbox / "work")
    assert done.returncode == 0, done.stderr
    assert "building retreat.1.0 on p1" in done.stdout
    assert files_below(sandbox / "work") == {
        "README.md",
        "bin/retreat.hvt",
        "build-environment",
        "doc/retreat/README.md",
        "opam-switch",
        "retreat.build-hashes",
        "system-packages",
    }
    assert (sandbox / "work/README.md").read_text() == "# Retreat\n"
    *installed, orb, environment = (sandbox / "log").read_text().splitlines()
    assert any("install" in line and "opam" in line for line in installed)
    assert orb.endswith(f"--out={sandbox}/work --repos=default:https://opam.ocaml.org retreat.1.0")
    assert ("--disable-sandboxing" in orb) == (name != "freebsd")
    assert environment == f"{sandbox}/home 1735689600 C.UTF-8 UTC"

    again = run(text, sandbox / "work")
    assert again.returncode == 1
    assert "this sandbox is not fresh" in again.stderr


@pytest.mark.parametrize("name", [name for name in NAMES if name != "freebsd"])
def test_another_release_is_refused(name: str, sandbox: Path) -> None:
    done = run(in_sandbox(script(name), sandbox, "debian-99"), sandbox / "work")
    assert done.returncode == 1
    assert f"this template is for {name}, and this is debian-99" in done.stderr
    assert not (sandbox / "log").exists()


@pytest.mark.parametrize("missing", ["build-environment", "opam-switch", "system-packages"])
def test_a_build_without_what_it_is_compared_by_fails(missing: str, sandbox: Path) -> None:
    with (sandbox / "fakes/orb").open("a") as orb:
        orb.write(f": >{missing}\n")
    done = run(in_sandbox(script("debian-12"), sandbox, "debian-12"), sandbox / "work")
    assert done.returncode == 1
    assert f"orb left no {missing}" in done.stderr


def test_a_failed_build_fails(sandbox: Path) -> None:
    with (sandbox / "fakes/orb").open("a") as orb:
        orb.write("exit 20\n")
    assert run(in_sandbox(script("debian-12"), sandbox, "debian-12"), sandbox / "work").returncode == 20
