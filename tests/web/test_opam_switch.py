"""Switch exports, the opam files in them, and what they say of a job."""

import json
from pathlib import Path

import pytest
from opam_uploads import DATA, files, index

from builder_web.errors import NoDuniverse, UnreadableOpamFile
from builder_web.opam.package import OpamFile
from builder_web.opam.summary import Summary, summarize
from builder_web.opam.switch import Package, read_switch, switch_path
from builder_web.opam.syntax import parse


def opam_file(text: str) -> OpamFile:
    return OpamFile.of(parse(text.encode()))


def switch_of(opam: str, *, roots: str = '"main.1.0"', installed: str = "") -> bytes:
    return f'roots: [{roots}] installed: ["main.1.0" {installed}] package "main" {{ {opam} }}'.encode()


def test_a_real_export() -> None:
    switch = read_switch(files("pins-2")["opam-switch"])
    assert switch.main == Package(name="gen_js_api", version="1.0.8")
    assert len(switch.installed) == 27
    assert [str(package) for package in switch.compiler][-2:] == ["ocaml-config.2", "ocaml-options-vanilla.1"]
    assert switch.pinned == switch.roots
    assert switch.opam_files["gen_js_api"].text("synopsis") == "About gen_js_api"


@pytest.mark.parametrize("path", sorted((DATA / "switches").iterdir()), ids=lambda path: path.name)
def test_all_real_exports(path: Path) -> None:
    switch = read_switch(path.read_bytes())
    assert set(switch.roots) | set(switch.pinned) <= set(switch.installed.values())


@pytest.mark.parametrize("data", [b"", b'opam-version: "2.0"', b"\x7fELF", b"{", b"roots"])
def test_what_is_no_export(data: bytes) -> None:
    with pytest.raises(UnreadableOpamFile):
        read_switch(data)


def test_what_stands_there_twice_or_makes_no_sense_is_passed_over() -> None:
    switch = read_switch(
        b'roots: "a.1" installed: ["a.1" 3 ["b.1"] "nodot"] installed: ["c.1"] package {} package "a" {version: "1"}'
        b'package "a" {version: "2"} other "a" {}'
    )
    assert list(map(str, switch.installed.values())) == ["a.1", "nodot."]
    assert switch.opam_files["a"].text("version") == "1"


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["bin/x", "opam-switch"], "opam-switch"),
        (["elsewhere/opam-switch", "opam-switch", "x"], "opam-switch"),
        (["a/b/opam-switch", "c/opam-switch"], "c/opam-switch"),
        (["my-opam-switch", "opam-switch/x", "opam-switch.txt"], None),
        ([], None),
    ],
)
def test_which_file_is_the_export(paths: list[str], found: str | None) -> None:
    assert switch_path(paths) == found


# --- opam files ------------------------------------------------------------------------------------------------------


def test_opam_files_are_shown_in_the_order_of_opam() -> None:
    shown = opam_file(
        'x-b: [] x-a: ["1"] url { checksum: ["md5=1"] src: "there" } build: [["make"] ["make" "install"]] '
        'depends: "ocaml" tags: ["one"] description: "\nText.\n\n" flags: [] author: ["me"] opam-version: "2.0"'
    ).show(name="p")
    assert shown == (
        'opam-version: "2.0"\nname: "p"\ndescription: "Text."\nauthors: "me"\ntags: "one"\ndepends: ["ocaml"]\n'
        'build: [\n  ["make"]\n  ["make" "install"]\n]\nurl {\n  checksum: "md5=1"\n  src: "there"\n}\nx-a: ["1"]\n'
    )


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ('synopsis: "a" maintainer: "b" x-commit-hash: "c"', 'synopsis: "d" homepage: "e"'),
        ('build: ["make"]', 'build: [["make"]]'),
        ("build: []", ""),
        ('depends: "a"', 'depends: ["a"]'),
        ('url {src: "a" checksum: ["md5=1" "sha256=2"]}', 'url {src: "b" mirrors: "c" checksum: "md5=1"}'),
        ('url {src: "a"} url {src: "b"}', 'url {src: "a"}'),
    ],
)
def test_what_does_not_matter_for_a_build(left: str, right: str) -> None:
    assert opam_file(left).effective() == opam_file(right).effective()


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ('build: ["make"]', 'build: ["make" "all"]'),
        ('depends: ["a"]', 'depends: ["a" {>= "2"}]'),
        ('x-env-path-rewrite: [["A" false]]', 'x-env-path-rewrite: [["A" true]]'),
        ('url {src: "a" checksum: "md5=1"}', 'url {src: "a" checksum: "md5=2"}'),
        ('url {src: "git+a#1"}', 'url {src: "git+a#2"}'),
        ('url {src: "a"}', ""),
        ('extra-source "p" {src: "a"}', 'extra-source "q" {src: "a"}'),
    ],
)
def test_what_matters_for_a_build(left: str, right: str) -> None:
    assert opam_file(left).effective() != opam_file(right).effective()


# --- directories of sources ------------------------------------------------------------------------------------------


def test_directories_of_a_unikernel() -> None:
    found = read_switch(files("hello-1")["opam-switch"]).duniverse()
    assert list(found) == ["fmt", "logs", "lwt", "mirage-solo5", "old"]
    assert found["lwt"].url == "git+https://src.example.org/team/lwt.git#1a2b3c"
    assert list(found["fmt"].hashes) == ["sha512", "sha256"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (switch_of("", roots='"main.1.0" "b.1"'), "not a single root package found in opam switch export"),
        (b'roots: "main.1.0"', "opam switch export doesn't contain the main package"),
        (switch_of("x-opam-monorepo-duniverse-dirs: 1"), "x-opam-monorepo-duniverse-dirs is not a list"),
        (switch_of('x-opam-monorepo-duniverse-dirs: [["a"]]'), "has a row that is not"),
        (switch_of('x-opam-monorepo-duniverse-dirs: ["a"]'), "has a row that is not"),
    ],
)
def test_no_directories(data: bytes, why: str) -> None:
    with pytest.raises(NoDuniverse, match=why):
        read_switch(data).duniverse()


# --- what a job is about ---------------------------------------------------------------------------------------------


def test_the_recorded_tags() -> None:
    database = json.loads((DATA / "golden" / "database.json").read_text())["tables"]
    names = {row["id"]: row["name"] for row in database["job"]}
    tags = {row["id"]: row["tag"] for row in database["tag"]}
    recorded: dict[str, dict[str, str]] = {name: {} for name in names.values()}
    for row in database["job_tag"]:
        recorded[names[row["job"]]][tags[row["tag"]]] = row["value"]

    found: dict[str, dict[str, str]] = {name: {} for name in names.values()}
    for entry in index().values():
        path = switch_path(files(entry["name"])) if entry["job"] in found else None
        try:
            summary = summarize(read_switch(files(entry["name"])[path])) if path else None
        except UnreadableOpamFile:
            continue
        if summary:
            about = {"section": summary.section, "synopsis": summary.synopsis, "description": summary.description}
            found[entry["job"]] = {tag: value for tag, value in about.items() if value}
    assert found == recorded


@pytest.mark.parametrize(
    ("data", "summary"),
    [
        (switch_of(""), Summary(section="Packages", synopsis=None, description=None)),
        (switch_of('synopsis: " "'), Summary(section="Packages", synopsis=None, description=None)),
        (switch_of("x-mirage-opam-lock-location: 1"), Summary(section="Unikernels", synopsis=None, description=None)),
        (switch_of("", roots='"main.1.0" "b.1"'), None),
        (switch_of("", roots=""), None),
        (switch_of("") + b'compiler: "ocaml.5.2.0"', None),
        (switch_of("") + b'pinned: "main.1.0"', None),
        (b'roots: "main.1"', Summary(section="Packages", synopsis=None, description=None)),
        (b'roots: "mirage-unikernel-x.1"', Summary(section="Unikernels", synopsis=None, description=None)),
    ],
)
def test_summaries(data: bytes, summary: Summary | None) -> None:
    assert summarize(read_switch(data)) == summary


@pytest.mark.parametrize(
    ("opam", "installed", "section"),
    [
        ("", "", "Unikernels"),
        ("", '"metrics-influx.1"', "Unikernels (with metrics reported to Influx)"),
        ('depends: [("a" | "mirage-monitoring" {>= "1"})]', "", "Unikernels (with metrics reported to Influx)"),
        ('depends: ["mirage-monitoring" {with-test}]', "", "Unikernels"),
        ('depends: ["a" {= "mirage-monitoring"}]', "", "Unikernels"),
    ],
)
def test_sections_of_unikernels(opam: str, installed: str, section: str) -> None:
    data = f'roots: "mirage-unikernel-x.1" installed: [{installed}] package "mirage-unikernel-x" {{ {opam} }}'
    summary = summarize(read_switch(data.encode()))
    assert summary
    assert summary.section == section
