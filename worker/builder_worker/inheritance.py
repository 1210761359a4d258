"""What a worker got from whoever started it, and its jobs must not: then a job would behave differently under nohup."""

import signal


def keep_signals_from_jobs() -> None:
    """Go on ignoring the signals that were ignored when the worker began, but in a way that ends with exec; block none.

    Python's own two, SIGPIPE and SIGXFSZ, are set back wherever it starts a process. Those of terminals stay: a write
    would be interrupted by one that is handled, and tried again for ever.
    """
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTIN, signal.SIGTTOU}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
