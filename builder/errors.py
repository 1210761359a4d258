"""The errors that people see: each class says when it is raised and how its program ends."""

import signal
from typing import ClassVar


class BuilderError(Exception):
    """Base of every error that a person is told about, in one line, without a traceback."""

    exit_code: ClassVar[int] = 1


class ProtocolError(BuilderError):
    """Bytes or messages that are not what the protocol says. The connection that carries them is over."""

    exit_code = 4


class FrameTooLarge(ProtocolError):
    """A frame announces more bytes than its kind of message may have."""


class SpeaksTls(ProtocolError):
    """The other side speaks TLS, where this one does not."""


class TooManyArtifacts(ProtocolError):
    """A build has more artifacts than are taken: a fault of its job, not of the worker that sends them."""


class RemoteProtocolError(ProtocolError):
    """The peer sent a well-formed message when it was not its turn, or not of the kind expected."""


class ConnectionEnded(RemoteProtocolError):
    """The peer closed the connection, be it in the middle of an exchange or after it."""


class LocalProtocolError(ProtocolError):
    """This program tried to send a message that is not allowed now: a fault of ours, never of the peer."""


class InvalidName(BuilderError, ValueError):
    """A name of a job or a platform, or the path of an artifact, that must not reach the file system."""


class InvalidAddress(BuilderError, ValueError):
    """Text that should name a host and a port, and does not."""

    exit_code = 2


class InvalidEnvironment(BuilderError, ValueError):
    """A variable of the environment that can't be used; the text names it."""

    exit_code = 2


class NobodyReads(BuilderError):
    """The reader of standard output has gone, as `head` does. It is no fault: nothing is said."""

    exit_code: ClassVar[int] = 128 + signal.SIGPIPE  # as of any program that the signal ended


class InvalidOptions(BuilderError, ValueError):
    """Options of a job that contradict each other, or are out of range; the text says what to write."""

    exit_code = 2
