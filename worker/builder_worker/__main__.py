"""Where builder-worker begins, also as ``python -m builder_worker``."""

import signal
from functools import partial

from builder.runtime.entry import run

main = partial(run, "builder_worker.cli", keep=(signal.SIGHUP,))

if __name__ == "__main__":
    main()
