"""Where builder-client and builder-inspect begin; ``python -m builder_client`` is the former."""

from functools import partial

from builder.runtime.entry import run

main = partial(run, "builder_client.cli")
inspect = partial(run, "builder_client.inspect")

if __name__ == "__main__":
    main()
