"""How a program begins: this module imports next to nothing, so that Ctrl-C is in good hands from the first moment."""

import importlib
import os
import signal
from collections.abc import Iterable
from typing import NoReturn

_kept: set[int] = set()
"""Signals that do not end the program while it begins."""

_early: list[int] = []
"""Those of them that have come."""


def run(module: str, keep: Iterable[int] = ()) -> NoReturn:
    """Run the program whose ``main`` is in a module.

    While its modules are imported, Ctrl-C ends the process as it does any other, and not by an exception that may come
    out of anything: ``program.run`` makes it one again. The signals ``keep``, which would end it, wait until the program
    says by ``deliver`` that it takes them.
    """
    for number in keep:
        if signal.getsignal(number) is signal.SIG_DFL:  # and not ignored
            _kept.add(number)
            signal.signal(number, lambda number, _: _early.append(number))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as below nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    importlib.import_module(module).main()
    raise SystemExit


def is_wanted(number: int) -> bool:
    """Return whether a signal may mean something to this program: who started it did not have it ignored."""
    return number in _kept or signal.getsignal(number) is signal.SIG_DFL


def deliver() -> None:
    """Send this process the signals that came too early, now that there are handlers for them."""
    while _early:
        os.kill(os.getpid(), _early.pop())


def release() -> None:
    """Let signals that were kept end the program after all."""
    while _kept:
        signal.signal(_kept.pop(), signal.SIG_DFL)
    deliver()
