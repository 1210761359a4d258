"""How a program begins: this module imports next to nothing, so that Ctrl-C is in good hands from the first moment."""

import importlib
import signal
from typing import NoReturn


def run(module: str) -> NoReturn:
    """Run the program whose ``main`` is in a module.

    While its modules are imported, Ctrl-C ends the process as it does any other, and not by an exception that may come
    out of anything: ``program.run`` makes it one again.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as below nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    importlib.import_module(module).main()
    raise SystemExit
