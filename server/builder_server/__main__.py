"""Where builder-server begins, also as ``python -m builder_server``."""

import signal
from functools import partial

from builder.runtime.entry import run

main = partial(run, "builder_server.cli", keep=(signal.SIGHUP,))

if __name__ == "__main__":
    main()
