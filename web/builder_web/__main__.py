"""Where builder-web begins; also as ``python -m builder_web``."""

import signal
from functools import partial

from builder.runtime.entry import run

main = partial(run, "builder_web.cli", keep=(signal.SIGHUP,))

if __name__ == "__main__":
    main()
