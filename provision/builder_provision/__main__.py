"""Where builder-provision begins; also as ``python -m builder_provision``."""

import signal
from functools import partial

from builder.runtime.entry import run

main = partial(run, "builder_provision.cli", keep=(signal.SIGHUP,))

if __name__ == "__main__":
    main()
