"""The commands of builder-db, a module each."""
