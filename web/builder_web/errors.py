"""The errors of builder-web and builder-db that people see."""

from builder.errors import BuilderError


class NotOurs(BuilderError):
    """A data directory of another program, or of another schema version; the text says what to do."""

    exit_code = 2


class Unknown(BuilderError):
    """There is no such user, job or build."""


class Exists(BuilderError):
    """There is such a user, or such an entry, already."""


class Damaged(BuilderError):
    """What was verified is not as it should be; each fault was printed."""
