"""What a program tells the service manager that started it, such as systemd: see sd_notify(3)."""

import logging
import os
import socket

log = logging.getLogger(__name__)

_TIMEOUT = 1.0
"""Seconds that the manager may take to make room for a datagram: it reads them at once, or is stuck itself."""


def notify(state: str) -> None:
    """Tell that the program is ready (``READY=1``), stops (``STOPPING=1``), or lives (``WATCHDOG=1``).

    Without a manager that wants to know, by NOTIFY_SOCKET in the environment, nothing happens. What goes wrong is only
    logged: the manager notices by itself that it was told nothing.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # Linux's abstract names, which begin with NUL
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(_TIMEOUT)
            manager.sendto(state.encode("ascii"), address)
    except OSError as error:
        log.warning("the service manager can't be told %s: %s", state, error.strerror or error)


FIRST_PASSED = 3
"""The descriptor of the first socket that is handed over."""


def passed_sockets() -> list[tuple[str, socket.socket]]:
    """Return the sockets that the manager hands over, with the names it gives them: see sd_listen_fds(3).

    They are asked for once: what this program starts must not take them for its own.
    """
    count, process, names = (os.environ.pop(f"LISTEN_{each}", "") for each in ("FDS", "PID", "FDNAMES"))
    if process != str(os.getpid()) or not count.isdecimal():
        return []
    called = names.split(":") if names else []
    found = []
    for number in range(int(count)):
        descriptor = FIRST_PASSED + number
        os.set_inheritable(descriptor, False)
        found.append((called[number] if number < len(called) else "", socket.socket(fileno=descriptor)))
    return found


def watchdog_interval() -> float | None:
    """Return the seconds after which the manager is to hear ``WATCHDOG=1`` again, None if it does not want to.

    That is a third of what it waits for, see sd_watchdog_enabled(3).
    """
    usec, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or not int(usec) or process not in ("", str(os.getpid())):
        return None
    return int(usec) / 3_000_000
