"""``python -m builder_server``."""

from builder_server.cli import main

main()
