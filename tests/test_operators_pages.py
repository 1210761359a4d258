"""The operators' pages say what is there: their links lead somewhere, and the programs know what they are told."""

import re
import sys
from pathlib import Path

import pytest
from farm import PACKAGES
from operators import ROOT, run

PAGES = [ROOT / "docs/linux.md", ROOT / "docs/freebsd.md"]

HELP: dict[str, list[tuple[str, ...]]] = {
    "builder_server": [()],
    "builder_worker": [(), ("check",), ("run",), ("root", "create")],
    "builder_client": [("schedule",), ("orb-build",), ("observe",), ("info",)],
    "builder_client.inspect": [()],
    "builder_web": [()],
    "builder_web.administration": [("user-add",), ("vacuum",)],
}

NOT_OURS = {"--user", "--scope", "--now", "--rm", "--init", "--disable-sandboxing", "--no-sandbox"}
"""Options of other programs on these pages."""


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        other = page.parent / path if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


def test_options_exist() -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(map(str, PACKAGES))}
    known = set(NOT_OURS)
    for module, commands in HELP.items():
        for command in commands:
            known.update(
                re.findall(r"--[a-z-]+", run(sys.executable, "-m", module, *command, "--help", env=environment))
            )
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
