"""Logs to a real systemd-journald, and prints what that has kept: run as root, in a mount namespace of its own."""

import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from builder.runtime import logs
from builder.runtime.logs import about

LARGE = 2_000_000
NAME = "builder-test"

RUN = Path("/run")
SOCKETS = RUN / "systemd" / "journal"


def main(journald: str) -> None:
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(RUN)], check=True)
    SOCKETS.mkdir(parents=True)
    (RUN / "log" / "journal").mkdir(parents=True)
    with subprocess.Popen([journald], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not (SOCKETS / "stdout").exists() or not (SOCKETS / "socket").exists():
                time.sleep(0.01)
            say()
            subprocess.run(["journalctl", "--sync"], check=True)
            where = "--directory", str(RUN / "log" / "journal")
            subprocess.run(["journalctl", *where, "--all", "--output=json", f"SYSLOG_IDENTIFIER={NAME}"], check=True)
        finally:
            process.kill()


def say() -> None:
    """Log as a unit does, whose standard error is a stream to the journal."""
    kept = os.dup(2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect(str(SOCKETS / "stdout"))
        stream.sendall(f"{NAME}\n\n6\n0\n0\n0\n0\n".encode())
        os.dup2(stream.fileno(), 2)
    status = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    logs.set_up(NAME, verbosity=0, form="text")
    log = logging.getLogger("test")
    with about(uuid="u1", job="a\nMESSAGE=forged", platform="p1", peer="[::1]:5", holder="ada"):
        log.warning("begins")
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            log.exception("internal error")
        log.info("%s", "x" * LARGE)
    os.dup2(kept, 2)


if __name__ == "__main__":
    main(sys.argv[1])
