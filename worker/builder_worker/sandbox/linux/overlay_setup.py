"""A program in the chain that starts an ``overlay`` sandbox: from the host's root to the root of a user namespace.

    python overlay_setup.py TREE DIRECTORY FIRST_UID COMMAND…

It makes a user namespace that owns 65536 users of the host from FIRST_UID on and in which it is user 0, and in a mount
namespace of its own mounts TREE below DIRECTORY twice: at ``lower``, with its owners shifted to those users, and at
``root``, with a writable layer on top. It enters the user namespace and becomes the command. Nothing of TREE is changed,
and nothing is left when the command ends: the mounts go with the namespace.

It runs as a program because a process with threads, like the worker, cannot enter a user namespace. It imports
nothing of the worker, for its time counts for every job.
"""

import ctypes
import os
import signal
import sys

_USERS = 65536
"""Users in the namespace: the 16 bits that Debian's policy counts on."""

# From the kernel's include/uapi/linux/{sched,mount,fcntl}.h; the numbers of these calls are the same on all machines.
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV = 0x4000, 0x40000, 2, 4
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV, _MOUNT_ATTR_IDMAP = 1, 2, 4, 0x100000
_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP = 28, 4

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd"))


def _check(what: str, result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    _check(f"mount {target}", _libc.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]))


def _user_namespace(first_uid: int) -> int:
    """Return a descriptor of a new user namespace, made by a child that need not live on.

    The child is not user 0: only to another one's limits does the kernel hold all users of the namespace together. It
    keeps root's rights, as not everyone may make namespaces everywhere.
    """
    ready, release = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        made = (
            _libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP) == 0
            and _libc.setresuid(first_uid, first_uid, first_uid) == 0
            and _libc.unshare(_CLONE_NEWUSER) == 0
        )
        os.write(ready[1], b"y" if made else b"n")
        os.read(release[0], 1)
        os._exit(0)
    try:
        if os.read(ready[0], 1) != b"y":
            raise OSError("cannot make a user namespace")
        for name in ("uid_map", "gid_map"):
            map_file = os.open(f"/proc/{child}/{name}", os.O_WRONLY)
            os.write(map_file, b"0 %d %d" % (first_uid, _USERS))
            os.close(map_file)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for descriptor in ready + release:
            os.close(descriptor)


def _mount_shifted(tree: str, target: str, namespace: int) -> None:
    """Show a tree read-only at another place, with the owners that a user namespace gives them."""
    number = ctypes.c_long
    detached = _check(
        f"open_tree {tree}",
        _libc.syscall(number(_OPEN_TREE), _AT_FDCWD, os.fsencode(tree), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC),
    )
    attributes = _MountAttributes(
        attr_set=_MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV | _MOUNT_ATTR_IDMAP, userns_fd=namespace
    )
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _check(
        "shift the owners of the tree (kernel 5.19 or newer, and a file system that can)",
        _libc.syscall(number(_MOUNT_SETATTR), detached, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size),
    )
    _check(
        f"move_mount {target}",
        _libc.syscall(number(_MOVE_MOUNT), detached, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH),
    )
    os.close(detached)


def _find(program: str) -> str:
    for directory in os.get_exec_path():
        if os.access(f"{directory}/{program}", os.X_OK):
            return f"{directory}/{program}"
    raise OSError(f"{program} is not installed")


def _enter(namespace: int) -> None:
    _check("setns", _libc.setns(namespace, _CLONE_NEWUSER))
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def main() -> None:
    """Make the namespaces and mounts, and become the command."""
    tree, directory, first_uid, *command = sys.argv[1:]
    program = _find(command[0])  # now: later, it may not be allowed to read Python's own modules
    namespace = _user_namespace(int(first_uid))
    _check("unshare", _libc.unshare(_CLONE_NEWNS))
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE, None)
    os.chdir(directory)
    _mount_shifted(tree, "lower", namespace)
    layers = "lowerdir=lower,upperdir=disk/upper,workdir=disk/scratch"  # relative: a path may hold colons
    _mount("overlay", "root", "overlay", _MS_NOSUID | _MS_NODEV, layers)
    os.chdir("/")
    _enter(namespace)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and jobs would inherit it
        signal.signal(ignored, signal.SIG_DFL)
    os.execv(program, command)  # noqa: S606 - what it is for


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"cannot make the root of the job: {error.strerror or error}")
