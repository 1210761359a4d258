"""What the server's parts refuse."""

from builder.errors import BuilderError


class CommandRefused(BuilderError):
    """What a peer asked for can't be done; the text is the failure reply."""
