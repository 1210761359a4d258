"""Where builder-db begins; also as ``python -m builder_web.administration``."""

from functools import partial

from builder.runtime.entry import run

main = partial(run, "builder_web.administration.cli")

if __name__ == "__main__":
    main()
