"""Lets ``python -m builder_worker`` be builder-worker."""

from builder_worker.cli import main

main()
