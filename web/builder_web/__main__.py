"""Where builder-web begins; also as ``python -m builder_web``."""

from functools import partial

from builder.runtime.entry import run

main = partial(run, "builder_web.cli")

if __name__ == "__main__":
    main()
