"""The subcommands of builder-worker, one module each. They parse and print; what is slow to import, they import late."""
