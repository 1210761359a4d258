"""Our own protocol, version 100: messages with tags from 64 up, and what is said between peers of ours alone.

A client keeps its connection for as many requests as it likes, one after the other. Each has its replies, and ends with
Success or Failure. Lists come in pages, and without scripts. How messages are made is in ``builder.messages``; all of
these are ``numbered``, so that a later version may add to them.
"""

from typing import ClassVar

from attrs import frozen

from builder.messages import Message, message

VERSION = 100
"""The version that peers of ours name in their hello, for both roles. Later ones are higher; both sides speak the lower."""

MAX_PAGE = 1000
"""Most entries of a page."""


class Request(Message):
    """What a client asks for on a connection of the extension."""

    __slots__ = ()
    numbered: ClassVar[bool] = True

    changes: ClassVar[bool] = False
    """Whether it changes anything: then the server's log tells of it."""


class Reply(Message):
    """What a server answers before the Success that ends the answer."""

    __slots__ = ()
    numbered: ClassVar[bool] = True


@message
@frozen(kw_only=True)
class Welcome(Message):
    """The server's answer to the hello: the version that both will speak. ``release`` is that of its program."""

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 64
    version: int
    release: str | None = None
