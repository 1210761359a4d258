"""``python -m builder_client`` is builder-client."""

from builder_client.cli import main

main()
