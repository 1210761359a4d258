"""What takes the space in binaries: made ones, where each byte is known, the system's own, and damaged ones."""

import io
import struct
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elves import ALLOCATED, FILE, FUNCTION, GLOBAL, LOCAL, S, Symbol, make_elf
from hypothesis import given
from hypothesis import strategies as st
from strategies import mutated
from uploads import binary, debug

from builder_web.binaries.contents import BinaryContents, BinaryPart, read_contents
from builder_web.binaries.elf import NOBITS, Damaged, read_elf

WRITABLE = 1
SYSTEM = [
    Path(sys.executable).resolve(),
    Path("/bin/ls"),
    *Path("/lib").glob("*/libc.so.6"),
    *Path("/usr/lib").glob("*/libstdc++.so.6"),
    *Path("/usr/lib").glob("*/crt1.o"),
    *Path(sys.base_prefix).glob("lib/libpython3.*.so.1.0"),
    *sorted(Path("/usr/lib/debug").glob("**/*.debug"))[:5],
]


def _read(data: bytes) -> BinaryContents | Damaged | None:
    return read_contents(io.BytesIO(data))


def _contents(data: bytes) -> BinaryContents:
    found = _read(data)
    assert isinstance(found, BinaryContents)
    return found


def _sizes(part: BinaryPart) -> dict[str, int]:
    """Return the leaves, by their paths below the part."""
    if not part.parts:
        return {"": part.size}
    return {f"{inner.name}/{path}".rstrip("/"): size for inner in part.parts for path, size in _sizes(inner).items()}


def _is_sound(part: BinaryPart) -> bool:
    """Whether the parts take all the bytes, the largest first."""
    sizes = [inner.size for inner in part.parts]
    return (
        (not sizes or sum(sizes) == part.size)
        and sizes == sorted(sizes, reverse=True)
        and all(inner.size > 0 and _is_sound(inner) for inner in part.parts)
    )


def _count(part: BinaryPart) -> int:
    return 1 + sum(map(_count, part.parts))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [32, 64])
def test_each_byte_of_a_section_counts_once(bits: int, order: str) -> None:
    text = S(name=b".text", content=bytes(1000), address=0x1000)
    data = S(name=b".data", content=bytes(300), address=0x2000)
    bss = S(name=b".bss", kind=NOBITS, size=5000, address=0x3000)
    comment = S(name=b".comment", content=bytes(77), flags=0)
    symbols = [
        Symbol(name=b"path/to/main.c", kind=FILE, binding=LOCAL, section=0xFFF1),
        Symbol(name=b"helper", address=0x1000, size=100, binding=LOCAL),
        Symbol(name=b"helper.cold", address=0x1064, size=50, binding=LOCAL),
        Symbol(name=b"", kind=FILE, binding=LOCAL, section=0xFFF1),
        Symbol(name=b"of_no_file", address=0x1096, size=50, binding=LOCAL),
        Symbol(name=b"lib_one", address=0x1100, size=200),
        Symbol(name=b"lib_one_again", address=0x1100, size=100),  # in the same place: an alias
        Symbol(name=b"lib_two", address=0x1180, size=200),  # begins inside the one before it
        Symbol(name=b"main", address=0x1300, size=9999),  # reaches beyond the section
        Symbol(name=b"label", address=0x1000),  # of no size
        Symbol(name=b"camlLwt__data_begin", address=0x2000, section=2),
        Symbol(name=b"camlLwt__1", address=0x2000, section=2),
        Symbol(name=b"camlLwt.Inner_2", address=0x2040, section=2),
        Symbol(name=b"camlStdlib__List__3", address=0x2060, section=2),
        Symbol(name=b"end", address=0x2080, section=2),
        Symbol(name=b"outside", address=0x9000, size=8, section=2),
        Symbol(name=b"nowhere", address=0x1000, size=8, section=77),
    ]
    found = _contents(make_elf([text, data, bss, comment], symbols, bits=bits, order=order))
    assert _sizes(found.loaded) == {
        ".text/without a name": 1000 - 150 - 50 - 328 - (1000 - 768),
        ".text/lib_*/lib_one": 200,
        ".text/lib_*/lib_two": 128,
        ".text/main": 232,
        ".text/main.c/helper": 100,
        ".text/main.c/helper.cold": 50,
        ".text/of_no_file": 50,
        ".data/without a name": 300 - 128,
        ".data/Lwt/1": 64,
        ".data/Lwt/Inner_2": 32,
        ".data/Stdlib/List/3": 32,
    }
    assert _is_sound(found.loaded)
    assert (found.zeroed, found.unnamed) == (5000, None)
    assert found.unloaded > 77


def test_what_is_small_is_summed_up_and_the_tree_is_bounded() -> None:
    count = 60_000
    symbols = [Symbol(name=b"u%d_s%d" % (i % 300, i), address=i * 16, size=16) for i in range(count)]
    found = _contents(make_elf([S(name=b".text", content=bytes(16 * count))], symbols)).loaded
    assert found.size == 16 * count
    assert _is_sound(found)
    assert _count(found) < 2000
    (text,) = found.parts
    assert len(text.parts) == 300
    assert text.parts[0] == BinaryPart(name="u0_*", size=3200)  # its symbols of 16 bytes are too small to be told apart


def test_a_file_for_debuggers_has_the_sizes_of_the_program() -> None:
    text = S(name=b".text", kind=NOBITS, size=4000, address=0x1000)
    bss = S(name=b".bss", kind=NOBITS, size=900, address=0x4000, flags=ALLOCATED | WRITABLE)
    note = S(name=b".note.solo5.abi", content=bytes(36), kind=7)
    info = S(name=b".debug_info", content=bytes(5000), flags=0)
    found = _contents(make_elf([text, bss, note, info], [Symbol(name=b"f", address=0x1000, size=4000)]))
    assert _sizes(found.loaded) == {".text/f": 4000, ".note.solo5.abi": 36}
    assert found.zeroed == 900
    assert found.unloaded > 5000


def test_the_artifact_with_the_symbols_of_an_upload() -> None:
    found = _contents(debug("hello-1").content)
    assert _sizes(found.loaded) == {
        ".text/caml_alloc": 1600,
        ".text/Lwt/bind_42": 900,
        ".text/Hello/start_101": 400,
        ".text/solo5_app_main": 120,
        ".text/without a name": 9,
        ".note.solo5.manifest": 240,
        ".note.solo5.abi": 36,
        ".rodata": 8,
    }


def test_what_is_stripped_says_so() -> None:
    found = _contents(binary("plain-1"))
    assert found.unnamed == "The binary is stripped: only what it shares with others has names."
    found = _contents(make_elf([S(name=b".text", content=b"x")]))
    assert found.unnamed == "The binary is stripped: it has no symbols."


def test_what_is_not_elf_has_no_contents() -> None:
    assert _read(binary("good")) is None
    assert _read(debug("odd-1").content) is None


@pytest.mark.parametrize("name", ["bad-elf-cut", "bad-elf-names", "bad-elf-short"])
def test_damage_is_a_sentence(name: str) -> None:
    found = _read(binary(name))
    assert isinstance(found, Damaged)
    assert found.reason.endswith(".")


def test_a_section_behind_the_end_of_the_file_is_damage() -> None:
    found = _read(make_elf([S(name=b".text", content=b"x", size=2**50)]))
    assert found == Damaged(reason="The section .text ends behind the end of the file.")


@pytest.mark.parametrize(
    "table",
    [
        S(name=b".symtab", kind=2, flags=0, size=2**50, entry_size=24, link=3),
        S(name=b".symtab", kind=2, flags=0, size=24, entry_size=1, link=3),
        S(name=b".symtab", kind=2, flags=0, size=24, entry_size=24, link=99),
        S(name=b".symtab", kind=2, flags=0, size=2**40, entry_size=24, link=2),
        S(name=b".symtab", kind=2, flags=0, content=bytes(24), entry_size=24, link=4),
    ],
)
def test_symbols_that_cannot_be_read_leave_the_sections(table: S) -> None:
    strings = S(name=b".strtab", kind=3, flags=0, size=2**40)
    empty = S(name=b".void", kind=NOBITS, flags=0)
    found = _contents(make_elf([S(name=b".text", content=bytes(8)), table, strings, empty]))
    assert {".text": 8}.items() <= _sizes(found.loaded).items()


def test_the_system_s_own_binaries() -> None:
    """As a library that reads all of them slowly has it; and no slower than a person would wait."""
    for path in SYSTEM:
        with path.open("rb") as file:
            started = time.process_time()
            found = read_contents(file)
            assert time.process_time() - started < 5
            assert isinstance(found, BinaryContents)
            assert _is_sound(found.loaded)
            elf = read_elf(file)
            assert elf is not None
            sections = list(ELFFile(file).iter_sections())
            assert [(s.name.decode(), s.size, s.offset) for s in elf.sections] == [
                (s.name, s["sh_size"], s["sh_offset"]) for s in sections
            ]
            if path.suffix != ".debug":
                in_file = [s for s in sections if s["sh_flags"] & ALLOCATED and s["sh_type"] != "SHT_NOBITS"]
                assert found.loaded.size == sum(s["sh_size"] for s in in_file)


def test_many_symbols_in_one_place_with_one_endless_name_take_little() -> None:
    count, name = 50_000, b"x" * 8 * 1024**2
    row = struct.pack("<IBxHQQ", 1, GLOBAL << 4 | FUNCTION, 1, 5, 2**60)
    data = make_elf(
        [
            S(name=b".text", content=bytes(100_000)),
            S(name=b".symtab", kind=2, flags=0, content=row * count, link=3, entry_size=24),
            S(name=b".strtab", kind=3, flags=0, content=b"\0" + name),
        ]
    )
    tracemalloc.start()
    try:
        found = _contents(data)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024**2
    finally:
        tracemalloc.stop()
    assert _sizes(found.loaded) == {".text/" + "x" * 256: 99_995, ".text/without a name": 5}


_FUZZED = {
    "debug": debug("hello-1").content,
    "stripped": binary("plain-1"),
    "32 bit": make_elf([S(name=b".text", content=bytes(64))], [Symbol(name=b"_ZN1a1bE", size=9)], bits=32, order=">"),
}


@given(data=st.sampled_from(sorted(_FUZZED)).flatmap(lambda name: mutated(st.just(_FUZZED[name]))))
def test_any_damage_gives_an_answer(data: bytes) -> None:
    found = _read(data)
    assert found is None or isinstance(found, BinaryContents | Damaged)
    if isinstance(found, BinaryContents):
        assert _is_sound(found.loaded)
