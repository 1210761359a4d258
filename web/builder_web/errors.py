"""The errors of builder-web and builder-db that people see."""

from builder.errors import BuilderError


class NotOurs(BuilderError):
    """A data directory of another program, or of another schema version; the text says what to do."""

    exit_code = 2
