"""Where builder-server begins, also as ``python -m builder_server``."""

from functools import partial

from builder.runtime.entry import run

main = partial(run, "builder_server.cli")

if __name__ == "__main__":
    main()
