"""The operators' pages say what is there: their links lead somewhere, and the programs know what they are told."""

import re
from pathlib import Path

import forked
import pytest
from farm import DEADLINE, PACKAGES
from operators import ROOT

PAGES = [
    ROOT / "docs/linux.md",
    ROOT / "docs/freebsd.md",
    ROOT / "docs/web.md",
    ROOT / "docs/certificates.md",
    ROOT / "docs/provenance.md",
    ROOT / "docs/operations.md",
    ROOT / "docs/scale.md",
    ROOT / "deploy/ha/README.md",
    ROOT / "deploy/kubernetes/README.md",
    ROOT / "deploy/slurm/README.md",
    ROOT / "docs/provision.md",
]

HELP: dict[str, list[tuple[str, ...]]] = {
    "builder_server": [
        (),
        ("backup",),
        ("migrate",),
        ("copy-database",),
        ("forget-server",),
        ("certificates",),
        ("certificates", "init"),
        ("certificates", "issue"),
        ("certificates", "revoke"),
        ("keys", "rotate"),
    ],
    "builder_worker": [(), ("check",), ("run",), ("root", "create")],
    "builder_client": [
        ("schedule",),
        ("execute",),
        ("orb-build",),
        ("observe",),
        ("info",),
        ("drain",),
        ("retry-upload",),
    ],
    "builder_client.inspect": [(), ("verify",)],
    "builder_provision": [()],
    "builder_web": [()],
    "builder_web.administration": [("user-add",), ("vacuum",), ("vacuum", "except-latest")],
}

NOT_OURS = {
    "--exclude",
    "--range",
    "--user",
    "--scope",
    "--now",
    "--rm",
    "--init",
    "--disable-sandboxing",
    "--no-sandbox",
    # of createuser, createdb, pg_dump and tar
    "--pwprompt",
    "--partition",
    "--mem",
    "--cpus-per-task",
    "--me",
    "--selector",
    "--namespace",
    "--from-file",
    "--follow",
    "--tag",
    "--owner",
    "--encoding",
    "--template",
    "--format",
    "--file",
    "--dbname",
    "--create",
    "--directory",
}
"""Options of other programs on these pages."""

OF_HOOKS = {"--build-time", "--sha", "--uuid", "--cache-dir", "--data-dir", "--main-binary-filepath"}
"""What builder-web gives to hooks; tests of these hold it against the original's."""


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        other = page.parent / path if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


def test_pictures_are_there_and_small() -> None:
    page = (ROOT / "docs/web.md").read_text("utf-8")
    shown = set(re.findall(r'(?:src|srcset)="(web/[^"]+)"', page))
    pictures = {f"web/{path.name}": path.stat().st_size for path in (ROOT / "docs/web").iterdir()}
    assert shown == set(pictures)
    assert sum(pictures.values()) < 1_500_000
    assert all(re.findall(r'<img [^>]*alt="([^"]*)"', page))


def test_options_exist() -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(map(str, PACKAGES))}
    known = NOT_OURS | OF_HOOKS
    for module, commands in HELP.items():
        for command in commands:
            done = forked.run(module, *command, "--help", env=environment, timeout=DEADLINE)
            known.update(re.findall(r"--[a-z-]+", done.stdout.decode()))
    for page in PAGES:
        text = page.read_text("utf-8")
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known, page


def test_the_page_about_freebsd_says_that_it_was_not_run_there() -> None:
    assert "None of this has been run on FreeBSD yet" in PAGES[1].read_text("utf-8")


def test_files_of_the_project_are_called_by_their_names() -> None:
    for page in PAGES:
        for name in re.findall(r"(?:systemd|freebsd|templates)/[\w./@-]*\w", page.read_text("utf-8")):
            if not re.search(rf"[/\w]{re.escape(name)}", page.read_text("utf-8")):
                assert (ROOT / name).exists(), f"{page.name}: {name}"
