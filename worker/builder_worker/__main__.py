"""Where builder-worker begins, also as ``python -m builder_worker``."""

from functools import partial

from builder.runtime.entry import run

main = partial(run, "builder_worker.cli")

if __name__ == "__main__":
    main()
