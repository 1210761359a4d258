"""What all programs of builder agree on: the messages, their encoding, their order on a connection.

Nothing here does I/O, except ``channel``, which carries a connection over a trio stream.
"""

__version__ = "0.1.0"
