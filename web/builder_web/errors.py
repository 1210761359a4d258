"""The errors of builder-web and builder-db that people see."""

from builder.errors import BuilderError


class NotOurs(BuilderError):
    """A data directory of another program, or of another schema version; the text says what to do."""

    exit_code = 2


class Unknown(BuilderError):
    """There is no such user, job or build."""


class Exists(BuilderError):
    """There is such a user, or such an entry, already."""


class Unsound(BuilderError):
    """What was verified is not as it should be; each fault was printed."""


class UnreadableOpamFile(BuilderError):
    """An opam file or a switch export that does not follow the syntax, or is larger than what is read."""

    def __init__(self, why: str, *, line: int, column: int) -> None:
        """``line`` and ``column`` count characters from 1."""
        super().__init__(f"line {line}, column {column}: {why}")
        self.line = line
        self.column = column


class NoDuniverse(BuilderError):
    """A switch that does not say which directories of sources its main package brings along."""
