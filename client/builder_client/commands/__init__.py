"""The commands of builder-client, a module each: the command line, the JSON that it prints, and what it does.

``registry`` finds them by name. What is slow to import, they import late, so that their help comes at once.
"""
