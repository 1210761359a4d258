"""The commands of builder-db."""
