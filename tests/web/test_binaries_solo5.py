"""Notes of Solo5, held against what the original answered to the same uploads, and against damage of any kind."""

import io
import json
import struct
import tracemalloc
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import mutated
from uploads import DATA, binary, upload

from builder_web.binaries.elf import Damaged
from builder_web.binaries.solo5 import Abi, Manifest, ManifestDevice, Unikernel, read_solo5

KEYS = ("solo5_manifest", "solo5_abi")


def _read(data: bytes) -> Unikernel | Damaged | None:
    return read_solo5(io.BytesIO(data))


def _names() -> list[str]:
    """Return the uploads with one main binary."""
    index = json.loads((DATA / "uploads" / "index.json").read_text())
    good = [entry for entry in index if entry["file"].endswith(".full") and not entry["name"].startswith("bad-")]
    return [e["name"] for e in good if sum(a.path.startswith("bin/") for a in upload(e["name"]).artifacts) == 1]


def _recorded() -> Iterator[tuple[UUID, dict[str, Any]]]:
    """Yield what was, or should have been, said of a build in JSON: of itself, or as the latest of its job."""
    for line in (DATA / "golden" / "recordings.jsonl").read_text().splitlines():
        step = json.loads(line)
        for answer in (step.get("json"), step.get("expected", {}).get("json")):
            if not isinstance(answer, dict):
                continue
            for build in [answer, *(job.get("latest", {}) for job in answer.get("jobs", []))]:
                if "uuid" in build and not build["uuid"].startswith("{"):
                    yield UUID(build["uuid"]), build


def test_what_the_original_says_of_each_upload() -> None:
    said = {uuid: {key: build[key] for key in KEYS if key in build} for uuid, build in _recorded()}
    found = {name: _read(binary(name)) for name in _names()}
    ours = {upload(name).uuid: value.to_json() if isinstance(value, Unikernel) else {} for name, value in found.items()}
    assert said.keys() & ours.keys() >= {upload(name).uuid for name in found if name != "good"}
    assert {uuid: answer for uuid, answer in said.items() if uuid in ours} == {
        uuid: ours[uuid] for uuid in ours if uuid in said
    }
    assert sum(map(bool, ours.values())) >= 10


def test_a_single_binary() -> None:
    found = _read((DATA / "uploads" / "manual.hvt").read_bytes())
    assert found == Unikernel(
        manifest=Manifest(version=1, devices=(ManifestDevice(name="service", type="NET_BASIC"),)),
        abi=Abi(target="hvt", version=3),
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("damaged-version", "The manifest of Solo5 has version 2; known is 1."),
        ("damaged-noabi", "There is one note of Solo5, but not the other: the ABI is missing."),
        ("damaged-target", "The ABI note of Solo5 names the unknown target 9."),
        ("damaged-first", "The first entry of the manifest of Solo5 is not the reserved one."),
        ("damaged-reserved", "The reserved bytes of the ABI note of Solo5 are not zero."),
        ("damaged-short", "The manifest of Solo5 has 212 bytes, which is not what 2 entries take."),
        ("damaged-attached", "The device x in the manifest of Solo5 is set up already, as in a dump of memory."),
        ("damaged-owner", "The section .note.solo5.manifest does not hold the one note of Solo5 that belongs there."),
        ("damaged-32", "There are notes of Solo5, but its unikernels are 64 bit with the least byte first."),
        (
            "bad-elf-cut",
            "The section table ends at byte 3944, behind the end of the file, which has 2196: cut short, or damaged.",
        ),
        ("bad-elf-names", "The names of the sections are not among the sections."),
        ("bad-elf-short", "The file is cut short: an ELF file of 7 bytes."),
    ],
)
def test_damage_is_a_sentence(name: str, reason: str) -> None:
    assert _read(binary(name)) == Damaged(reason=reason)


@pytest.mark.parametrize("name", ["plain-1", "future-2", "bad-elf-empty", "good"])
def test_what_is_no_unikernel_has_nothing(name: str) -> None:
    assert _read(binary(name)) is None


def _changed(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


_HEAD = b"MFT1Solo5\0\0\0" + struct.pack("<III", 0, 1, 2)
_ENTRY = b"service".ljust(68, b"\0") + struct.pack("<I", 2)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (_ENTRY, b"service".ljust(68, b"\0") + struct.pack("<I", 7), "has the unknown type 7"),
        (_ENTRY, b"s" * 68 + struct.pack("<I", 2), "a name without an end"),
        (_HEAD, _HEAD[:-4] + bytes(4), "has 0 entries"),
        (_HEAD, _HEAD[:-4] + b"\xff" * 4, "has 4294967295 entries"),
        (b".note.solo5.manifest\0", b".note.solo5.manifesT\0", "the manifest is missing"),
    ],
)
def test_other_damage(old: bytes, new: bytes, words: str) -> None:
    found = _read(_changed(binary("hello-7"), old, new))
    assert isinstance(found, Damaged)
    assert words in found.reason


def test_a_name_that_is_not_utf8_is_shown() -> None:
    found = _read(_changed(binary("hello-7"), _ENTRY, _ENTRY.replace(b"service", b"serv\xffce")))
    assert isinstance(found, Unikernel)
    assert found.manifest.devices[0].name == "serv\ufffdce"


class _Counting(io.BytesIO):
    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def test_of_a_large_binary_only_the_tables_and_the_notes_are_read() -> None:
    small = binary("hello-7")
    (table,) = struct.unpack_from("<Q", small, 40)
    large = _Counting(small[:table] + bytes(100 * 1024**2) + small[table:])
    large.getbuffer()[40:48] = struct.pack("<Q", table + 100 * 1024**2)
    assert read_solo5(large) == _read(small)
    assert large.taken < 4096


@pytest.mark.parametrize(
    "change",
    [
        {60: (0xFFFF, "H")},  # number of sections
        {40: (2**64 - 1, "Q")},  # where their table lies
        {40: (1, "Q")},
        {62: (0xFFFF, "H")},  # the names' section in the first section's link
        {60: (0, "H")},  # the number of sections in the first section's size
        {58: (1, "H")},  # size of an entry
    ],
)
def test_hostile_headers(change: dict[int, tuple[int, str]]) -> None:
    data = bytearray(binary("hello-7"))
    for offset, (value, kind) in change.items():
        struct.pack_into(f"<{kind}", data, offset, value)
    assert isinstance(_read(bytes(data)), Damaged | None)


def test_names_of_sections_that_all_lie_in_one_place_do_not_multiply_it() -> None:
    """60 000 sections, each named by the same 16 MiB without an end."""
    count, names = 60_000, 16 * 1024**2
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, count, 0
    )
    row = struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 64 + 64 * count, names, 0, 0, 1, 0)
    data = io.BytesIO(header + row * count + b"x" * names)
    data.getbuffer()[62:64] = struct.pack("<H", 1)
    tracemalloc.start()
    try:
        assert read_solo5(data) is None
        assert tracemalloc.get_traced_memory()[1] < 128 * 1024**2
    finally:
        tracemalloc.stop()


@given(
    data=st.sampled_from(["hello-1", "hello-5", "dns-1", "damaged-empty", "damaged-32"]).flatmap(
        lambda name: mutated(st.just(binary(name)))
    )
)
def test_any_damage_gives_an_answer(data: bytes) -> None:
    found = _read(data)
    assert found is None or isinstance(found, Unikernel | Damaged)
    if isinstance(found, Unikernel):
        assert json.loads(json.dumps(found.to_json())) == found.to_json()
