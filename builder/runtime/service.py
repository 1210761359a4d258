"""What a program tells the service manager that started it, such as systemd: see sd_notify(3)."""

import logging
import os
import socket

log = logging.getLogger(__name__)

_TIMEOUT = 1.0
"""Seconds that the manager may take to make room for a datagram: it reads them at once, or is stuck itself."""


def notify(state: str) -> None:
    """Tell that the program is ready (``READY=1``) or stops (``STOPPING=1``).

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
