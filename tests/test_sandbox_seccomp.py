"""The seccomp filter, run by a small interpreter of classic BPF: both machines can be tested on either."""

import errno
import struct

import pytest

from builder_worker.sandbox.linux import seccomp

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386, ARM = 0x40000003, 0x40000028
ALLOW = None
EPERM, ENOSYS, EAFNOSUPPORT = errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT
EPROTONOSUPPORT = errno.EPROTONOSUPPORT


def run(code: bytes, number: int, *arguments: int, architecture: int) -> int | None:
    """Return the error that a call gets, or None if it is allowed."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *(arguments + (0,) * 6)[:6])
    program = list(struct.iter_unpack("=HBBI", code))
    accumulator = at = 0
    while True:
        operation, then, otherwise, value = program[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x06:
                assert value == 0x7FFF0000 or value >> 16 == 5
                return None if value == 0x7FFF0000 else value & 0xFFFF
            case 0x15:
                at += then if accumulator == value else otherwise
            case 0x35:
                at += then if accumulator >= value else otherwise
            case 0x45:
                at += then if accumulator & value else otherwise
            case _:
                pytest.fail(f"operation {operation:#x}")


# fmt: off
CALLS = [
    # name, number on x86_64, number on aarch64, arguments, outcome
    ("read", 0, 63, (), ALLOW),
    ("execve", 59, 221, (), ALLOW),
    ("ptrace", 101, 117, (), ALLOW),
    ("personality", 135, 92, (0x40000,), ALLOW),
    ("chroot", 161, 51, (), ALLOW),  # needs a capability, which apt has in its own root tree
    ("ioctl TCGETS", 16, 29, (0, 0x5401), ALLOW),
    ("ioctl TIOCSTI", 16, 29, (0, 0x5412), EPERM),
    ("ioctl TIOCSTI, upper half set", 16, 29, (0, 0xFFFFFFFF_00005412), EPERM),
    ("ioctl TIOCLINUX", 16, 29, (0, 0x541C), EPERM),
    ("clone of fork", 56, 220, (0x1200011,), ALLOW),
    ("clone of a thread", 56, 220, (0x3D0F00,), ALLOW),
    ("clone CLONE_NEWUSER", 56, 220, (0x10000011,), EPERM),
    ("clone CLONE_NEWNS", 56, 220, (0x00020011,), EPERM),
    ("clone3", 435, 435, (), ENOSYS),
    ("unshare CLONE_FILES", 272, 97, (0x400,), ALLOW),
    ("unshare CLONE_NEWUSER", 272, 97, (0x10000000,), EPERM),
    ("unshare CLONE_NEWTIME", 272, 97, (0x80,), EPERM),
    ("setns", 308, 268, (), EPERM),
    ("mount", 165, 40, (), EPERM),
    ("umount2", 166, 39, (), EPERM),
    ("pivot_root", 155, 41, (), EPERM),
    ("open_tree", 428, 428, (), EPERM),
    ("fsopen", 430, 430, (), EPERM),
    ("mount_setattr", 442, 442, (), EPERM),
    ("keyctl", 250, 219, (), EPERM),
    ("add_key", 248, 217, (), EPERM),
    ("request_key", 249, 218, (), EPERM),
    ("bpf", 321, 280, (), EPERM),
    ("perf_event_open", 298, 241, (), EPERM),
    ("userfaultfd", 323, 282, (), EPERM),
    ("io_uring_setup", 425, 425, (), ENOSYS),
    ("open_by_handle_at", 304, 265, (), EPERM),
    ("syslog", 103, 116, (), EPERM),
    ("init_module", 175, 105, (), EPERM),
    ("finit_module", 313, 273, (), EPERM),
    ("kexec_load", 246, 104, (), EPERM),
    ("kexec_file_load", 320, 294, (), EPERM),
    ("swapon", 167, 224, (), EPERM),
    ("reboot", 169, 142, (), EPERM),
    ("quotactl", 179, 60, (), EPERM),
    ("settimeofday", 164, 170, (), EPERM),
    ("socket AF_UNIX", 41, 198, (1,), ALLOW),
    ("socket AF_INET", 41, 198, (2,), ALLOW),
    ("socket AF_INET6", 41, 198, (10,), ALLOW),
    ("socket AF_NETLINK", 41, 198, (16,), ALLOW),
    ("socket AF_NETLINK NETLINK_ROUTE", 41, 198, (16, 3, 0), ALLOW),
    ("socket AF_NETLINK NETLINK_USERSOCK", 41, 198, (16, 3, 2), EPROTONOSUPPORT),
    ("socket AF_INET IPPROTO 2", 41, 198, (2, 3, 2), ALLOW),
    ("socket AF_PACKET", 41, 198, (17,), EAFNOSUPPORT),
    ("socket AF_ALG", 41, 198, (38,), EAFNOSUPPORT),
    ("socket AF_VSOCK", 41, 198, (40,), EAFNOSUPPORT),
]
# fmt: on


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0])
def test_call(call: tuple[str, int, int, tuple[int, ...], int | None], machine: str) -> None:
    _, x86_64, aarch64, arguments, outcome = call
    number = {"x86_64": x86_64, "aarch64": aarch64}[machine]
    assert run(seccomp.build(machine), number, *arguments, architecture=ARCHITECTURES[machine]) == outcome


def test_calls_of_another_abi_do_not_exist() -> None:
    code = seccomp.build("x86_64")
    assert run(code, 21, architecture=I386) == ENOSYS, "mount of i386"
    assert run(code, 0, architecture=I386) == ENOSYS
    assert run(code, 0x40000000, architecture=ARCHITECTURES["x86_64"]) == ENOSYS, "read of x32"
    assert run(seccomp.build("aarch64"), 0, architecture=ARM) == ENOSYS


def test_every_refused_call_is_refused_and_its_neighbours_are_not() -> None:
    for machine, architecture in ARCHITECTURES.items():
        code = seccomp.build(machine)
        refused = {number for number in range(500) if run(code, number, architecture=architecture) is not None}
        listed = {
            number for name, number in seccomp._MACHINES[machine].numbers.items() if name not in seccomp._BY_ARGUMENTS
        }
        socket = seccomp._MACHINES[machine].numbers["socket"]
        assert refused == listed | {socket}, "a socket of family 0 is none that is allowed"
        assert len(code) // 8 <= 4096, "the kernel's bound"
