"""Where builder-web and builder-db begin; builder-web also as ``python -m builder_web``."""

from functools import partial

from builder.runtime.entry import run

main = partial(run, "builder_web.cli")
database = partial(run, "builder_web.administration.cli")

if __name__ == "__main__":
    main()
