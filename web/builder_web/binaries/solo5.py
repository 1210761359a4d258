"""What a Solo5 unikernel says of itself, in two ELF notes: its devices (the manifest) and what it runs on (the ABI).

The layout is that of Solo5's mft_abi.h and elf_abi.h, all numbers with the least significant byte first:

    note       size of the owner (6), size of the content, type, "Solo5" padded to 8 bytes, content
    manifest   4 bytes of padding, version (1), number of entries, the entries: the first is a reserved one
    entry      name in 68 bytes, type, 25 bytes that are set where the unikernel is started and are 0 in its file,
               padding to 104 bytes
    ABI        target, version, 8 reserved bytes that are 0
"""

import struct
from typing import Any, BinaryIO

from attrs import frozen

from builder_web.binaries.elf import Damaged, Elf, ElfSection, UnreadableElf, read_elf, shown

_MANIFEST = b".note.solo5.manifest"
_ABI = b".note.solo5.abi"

_OWNER = b"Solo5\0\0\0"
_OWNER_SIZE = 6  # with one NUL, without the padding
_NOTE = struct.Struct("<III8s")
_MANIFEST_TYPE = int.from_bytes(b"MFT1", "little")
_ABI_TYPE = int.from_bytes(b"ABI1", "little")

_MAX_ENTRIES = 64
_HEAD = struct.Struct("<4xII")
_ENTRY = struct.Struct("<68sI25s7x")
_RESERVED_ENTRY = 1 << 30
_DEVICE_TYPES = {1: "BLOCK_BASIC", 2: "NET_BASIC"}
_TARGET = struct.Struct("<IIQ")
_TARGETS = {1: "hvt", 2: "spt", 3: "virtio", 4: "muen", 5: "genode", 6: "xen"}

_MAX_NOTE = _NOTE.size + _HEAD.size + _MAX_ENTRIES * _ENTRY.size


@frozen(kw_only=True)
class ManifestDevice:
    """A device that the unikernel asks for: its name, any text of at most 67 bytes; BLOCK_BASIC or NET_BASIC."""

    name: str
    type: str


@frozen(kw_only=True)
class Manifest:
    """The devices of a unikernel, in their order."""

    version: int
    devices: tuple[ManifestDevice, ...]


@frozen(kw_only=True)
class Abi:
    """What the unikernel runs on, such as "hvt", and the version of the interface between them."""

    target: str
    version: int


@frozen(kw_only=True)
class Unikernel:
    """Both notes of a unikernel."""

    manifest: Manifest
    abi: Abi

    def to_json(self) -> dict[str, Any]:
        """Return the keys that the answers of builder-web have for a unikernel, and no others have."""
        devices = [{"name": device.name, "type": device.type} for device in self.manifest.devices]
        return {
            "solo5_manifest": {"type": "solo5.manifest", "version": self.manifest.version, "devices": devices},
            "solo5_abi": {"type": "solo5.abi", "target": self.abi.target, "version": self.abi.version},
        }


def read_solo5(file: BinaryIO) -> Unikernel | Damaged | None:
    """Read the notes of a binary, given as a seekable file: None for what is no unikernel of Solo5.

    A binary with one of the two notes alone is damaged, and so is an ELF file whose sections cannot be read.
    """
    try:
        elf = read_elf(file)
        return None if elf is None else _read_notes(elf)
    except UnreadableElf as error:
        return Damaged(reason=str(error))


def _read_notes(elf: Elf) -> Unikernel | None:
    manifest, abi = elf.find(_MANIFEST), elf.find(_ABI)
    if manifest is None and abi is None:
        return None
    if elf.bits != 64 or elf.order != "<":
        raise UnreadableElf("There are notes of Solo5, but its unikernels are 64 bit with the least byte first.")
    if manifest is None or abi is None:
        missing = "manifest" if manifest is None else "ABI"
        raise UnreadableElf(f"There is one note of Solo5, but not the other: the {missing} is missing.")
    return Unikernel(
        manifest=_parse_manifest(_note(elf, manifest, _MANIFEST_TYPE)),
        abi=_parse_abi(_note(elf, abi, _ABI_TYPE)),
    )


def _note(elf: Elf, section: ElfSection, kind: int) -> bytes:
    """Return the content of the only note in a section."""
    data = elf.content(section, _MAX_NOTE)
    if len(data) >= _NOTE.size and _NOTE.unpack_from(data) == (_OWNER_SIZE, len(data) - _NOTE.size, kind, _OWNER):
        return data[_NOTE.size :]
    raise UnreadableElf(f"The section {shown(section.name)} does not hold the one note of Solo5 that belongs there.")


def _parse_manifest(data: bytes) -> Manifest:
    if len(data) < _HEAD.size:
        raise UnreadableElf("The manifest of Solo5 is cut short.")
    version, count = _HEAD.unpack_from(data)
    if version != 1:
        raise UnreadableElf(f"The manifest of Solo5 has version {version}; known is 1.")
    if not 1 <= count <= _MAX_ENTRIES:
        raise UnreadableElf(f"The manifest of Solo5 has {count} entries instead of 1 to {_MAX_ENTRIES}.")
    if len(data) != _HEAD.size + count * _ENTRY.size:
        raise UnreadableElf(f"The manifest of Solo5 has {len(data)} bytes, which is not what {count} entries take.")
    (name, kind, state), *entries = _ENTRY.iter_unpack(data[_HEAD.size :])
    if kind != _RESERVED_ENTRY or any(name + state):
        raise UnreadableElf("The first entry of the manifest of Solo5 is not the reserved one.")
    return Manifest(version=version, devices=tuple(_device(*entry) for entry in entries))


def _device(name: bytes, kind: int, state: bytes) -> ManifestDevice:
    label, end, _ = name.partition(b"\0")
    if not end:
        raise UnreadableElf("A device in the manifest of Solo5 has a name without an end.")
    known = _DEVICE_TYPES.get(kind)
    if known is None:
        raise UnreadableElf(f"The device {shown(label)} in the manifest of Solo5 has the unknown type {kind}.")
    if any(state):
        raise UnreadableElf(
            f"The device {shown(label)} in the manifest of Solo5 is set up already, as in a dump of memory."
        )
    return ManifestDevice(name=shown(label), type=known)


def _parse_abi(data: bytes) -> Abi:
    if len(data) != _TARGET.size:
        raise UnreadableElf(f"The ABI note of Solo5 has {len(data)} bytes instead of {_TARGET.size}.")
    target, version, reserved = _TARGET.unpack(data)
    known = _TARGETS.get(target)
    if known is None:
        raise UnreadableElf(f"The ABI note of Solo5 names the unknown target {target}.")
    if reserved:
        raise UnreadableElf("The reserved bytes of the ABI note of Solo5 are not zero.")
    return Abi(target=known, version=version)
