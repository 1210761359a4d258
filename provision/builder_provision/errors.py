"""The errors of builder-provision that people see."""

from builder.errors import BuilderError


class InvalidFleet(BuilderError):
    """The file that says which workers there may be can't be used; the text names the key, and says what to write."""

    exit_code = 2


class EngineFailed(BuilderError):
    """An engine did not do what it was asked for, or did not answer."""

    exit_code = 3


class EngineSilent(EngineFailed):
    """An engine has not answered in time, and may have done what it was asked for, or still do it."""


class NotAllowedThere(BuilderError):
    """The server refuses what a provisioner needs of it."""

    exit_code = 4


class UnreadableLedger(BuilderError):
    """What was to be remembered can't be read: it is another file, or was changed by somebody."""

    exit_code = 3


class InUse(BuilderError):
    """Another builder-provision has the directory for what has to be remembered."""

    exit_code = 3
