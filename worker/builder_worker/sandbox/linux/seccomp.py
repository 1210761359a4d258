"""The seccomp filter of a job: classic BPF that refuses the system calls that namespaces and capabilities leave open.

It is a list of what is refused, because builds use everything else. What it adds to the other walls:
- the terminal: characters pushed into a terminal that the job was given (TIOCSTI, TIOCLINUX);
- what the kernel does not keep apart by namespace: its log, keyrings, and most kinds of sockets (vsock reaches the
  machine that hosts a virtual one);
- big parts of the kernel that no build needs and that have had holes: bpf, perf, userfaultfd, io_uring, user
  namespaces and the mounts that they permit;
- system calls of the machine's other ABIs, for which this filter has no numbers.

ptrace stays allowed, for debuggers: it reaches what is in the job's own process namespace and nothing else. So does
personality, which changes only the caller. Calls that programs probe for and can do without end with ENOSYS, all
others with EPERM.
"""

import errno
import platform
import struct
from collections.abc import Iterable
from typing import Any

from attrs import frozen

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
"""Offsets in struct seccomp_data, whose arguments are 64 bits wide: lower half first, as both machines are
little-endian."""

_X32 = 0x40000000
"""Set in the number of an x32 call on x86_64."""

_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""

_NEW_TIME = 0x80
"""CLONE_NEWTIME, for unshare only: in clone these bits are the signal at exit."""

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: each kept apart by the network namespace."""


_NETLINK, _NETLINK_USERSOCK = 16, 2
"""Between programs, by any protocol: what waits in such sockets counts as nobody's memory."""

_MAX_FAMILY = 64
"""More than the kernel has, which are 46."""


@frozen(kw_only=True)
class _Machine:
    architecture: int
    """AUDIT_ARCH_… of linux/audit.h."""
    numbers: dict[str, int]
    foreign_from: int | None = None


# From the kernel's arch/x86/entry/syscalls/syscall_64.tbl and scripts/syscall.tbl; a new call has the same number on
# both from 424 on.
_COMMON = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "open_tree_attr": 467,
}

_MACHINES = {
    "x86_64": _Machine(
        architecture=0xC000003E,
        foreign_from=_X32,
        numbers=_COMMON
        | {
            "ioctl": 16,
            "socket": 41,
            "clone": 56,
            "syslog": 103,
            "uselib": 134,
            "vhangup": 153,
            "pivot_root": 155,
            "acct": 163,
            "settimeofday": 164,
            "mount": 165,
            "umount2": 166,
            "swapon": 167,
            "swapoff": 168,
            "reboot": 169,
            "sethostname": 170,
            "setdomainname": 171,
            "iopl": 172,
            "ioperm": 173,
            "init_module": 175,
            "delete_module": 176,
            "quotactl": 179,
            "lookup_dcookie": 212,
            "clock_settime": 227,
            "kexec_load": 246,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "migrate_pages": 256,
            "unshare": 272,
            "move_pages": 279,
            "perf_event_open": 298,
            "fanotify_init": 300,
            "open_by_handle_at": 304,
            "clock_adjtime": 305,
            "setns": 308,
            "kcmp": 312,
            "finit_module": 313,
            "kexec_file_load": 320,
            "bpf": 321,
            "userfaultfd": 323,
        },
    ),
    "aarch64": _Machine(
        architecture=0xC00000B7,
        numbers=_COMMON
        | {
            "lookup_dcookie": 18,
            "ioctl": 29,
            "umount2": 39,
            "mount": 40,
            "pivot_root": 41,
            "vhangup": 58,
            "quotactl": 60,
            "acct": 89,
            "unshare": 97,
            "kexec_load": 104,
            "init_module": 105,
            "delete_module": 106,
            "clock_settime": 112,
            "syslog": 116,
            "reboot": 142,
            "sethostname": 161,
            "setdomainname": 162,
            "settimeofday": 170,
            "socket": 198,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "clone": 220,
            "swapon": 224,
            "swapoff": 225,
            "migrate_pages": 238,
            "move_pages": 239,
            "perf_event_open": 241,
            "fanotify_init": 262,
            "open_by_handle_at": 265,
            "clock_adjtime": 266,
            "setns": 268,
            "kcmp": 272,
            "finit_module": 273,
            "bpf": 280,
            "userfaultfd": 282,
            "kexec_file_load": 294,
        },
    ),
}

_PROBED = frozenset({"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "open_tree_attr"})
"""Calls that programs try and replace by older ones when the kernel does not have them. The flags of clone3 lie in
memory, where no filter can look."""


def _instruction(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """Assemble one instruction; ``then`` and ``otherwise`` are how many of the following a jump skips."""
    return struct.pack("=HBBI", code, then, otherwise, value)


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, offset)


def _argument(index: int) -> bytes:
    return _load(_ARGUMENTS_AT + 8 * index)


def _refuse(error: int = errno.EPERM) -> bytes:
    return _instruction(_RETURN, _ERRNO | error)


def _allow() -> bytes:
    return _instruction(_RETURN, _ALLOW)


def _for_number(number: int, code: bytes) -> bytes:
    """Run code that ends with a return for one system call, or value that was loaded, and skip it for all others."""
    return _instruction(_JUMP_EQUAL, number, otherwise=len(code) // 8) + code


def _any_of(index: int, values: Iterable[int], *, matching: bytes, other: bytes) -> bytes:
    """Compare an argument with some values."""
    code = _argument(index)
    for value in values:
        code += _instruction(_JUMP_EQUAL, value, otherwise=1) + matching
    return code + other


def _masked(index: int, mask: int) -> bytes:
    """Refuse when an argument has one of the bits of a mask."""
    return _argument(index) + _instruction(_JUMP_SET, mask, otherwise=1) + _refuse() + _allow()


_BY_ARGUMENTS = {
    "ioctl": _any_of(1, (_TIOCSTI, _TIOCLINUX), matching=_refuse(), other=_allow()),
    "clone": _masked(0, _NAMESPACES),
    "unshare": _masked(0, _NAMESPACES | _NEW_TIME),
    "socket": _argument(0)
    + _for_number(_NETLINK, _any_of(2, (_NETLINK_USERSOCK,), matching=_refuse(errno.EPROTONOSUPPORT), other=_allow()))
    + _any_of(0, _FAMILIES, matching=_allow(), other=_refuse(errno.EAFNOSUPPORT)),
}
"""Calls that are refused for some arguments only."""


def build(machine_name: str | None = None) -> bytes:
    """Return the filter for a machine, of those that ``supported`` knows; by default for this one."""
    machine = _MACHINES[machine_name or platform.machine()]
    numbers = machine.numbers
    code = [
        _load(_ARCHITECTURE_AT),
        _instruction(_JUMP_EQUAL, machine.architecture, then=1),
        _refuse(errno.ENOSYS),
        _load(_NUMBER_AT),
    ]
    if machine.foreign_from is not None:
        code += [_instruction(_JUMP_GREATER_EQUAL, machine.foreign_from, otherwise=1), _refuse(errno.ENOSYS)]
    for name, number in sorted(numbers.items()):
        refuse = _refuse(errno.ENOSYS if name in _PROBED else errno.EPERM)
        code.append(_for_number(number, _BY_ARGUMENTS.get(name, refuse)))
    return b"".join([*code, _allow()])


def oci_profile() -> dict[str, Any]:
    """Return the same filter for this machine in the form that podman takes.

    Its conditions compare 64 bits where the kernel looks at 32, so they are masked.
    """
    name = platform.machine()
    calls: list[dict[str, Any]] = [
        _oci_rule([call], errno.ENOSYS if call in _PROBED else errno.EPERM)
        for call in sorted(_MACHINES[name].numbers.keys() - _BY_ARGUMENTS.keys())
    ]
    calls += [_oci_rule(["ioctl"], errno.EPERM, 1, 0xFFFFFFFF, command) for command in (_TIOCSTI, _TIOCLINUX)]
    flags = [1 << bit for bit in range(32) if _NAMESPACES >> bit & 1]
    calls += [_oci_rule(["clone", "unshare"], errno.EPERM, 0, flag, flag) for flag in flags]
    calls.append(_oci_rule(["unshare"], errno.EPERM, 0, _NEW_TIME, _NEW_TIME))
    rule = _oci_rule(["socket"], errno.EPROTONOSUPPORT, 0, 0xFFFFFFFF, _NETLINK)
    rule["args"] += _oci_rule([], 0, 2, 0xFFFFFFFF, _NETLINK_USERSOCK)["args"]
    calls.append(rule)
    refused = [family for family in range(_MAX_FAMILY) if family not in _FAMILIES]
    calls += [_oci_rule(["socket"], errno.EAFNOSUPPORT, 0, 0xFFFFFFFF, family) for family in refused]
    architecture = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[name]
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [architecture], "syscalls": calls}


def _oci_rule(names: list[str], error: int, index: int | None = None, mask: int = 0, value: int = 0) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": error}
    if index is not None:
        rule["args"] = [{"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}]
    return rule


def supported() -> bool:
    """Return whether there is a filter for this machine."""
    return platform.machine() in _MACHINES
