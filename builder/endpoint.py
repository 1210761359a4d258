"""Servers as their clients and workers are told of them: where they are, and how they are spoken to. Nothing is opened here."""

import os
from collections.abc import Iterator, Mapping
from math import inf

from attrs import Factory, define, field, frozen

from builder.address import Address, TcpAddress, parse_remotes
from builder.errors import BuilderError

TLS = {
    "tls-ca": ("FILE", "Speak TLS with a server whose certificate is of an authority in this file."),
    "tls-cert": ("FILE", "The certificate that is shown to the server."),
    "tls-key": ("FILE", "Its key."),
    "tls-name": ("NAME", "The name that the server's certificate has, if its address has another one."),
}
"""How the parts of ``Tls`` are called as options, in files, and, with BUILDER_ before them, in the environment; what stands for
their values, and what they mean."""

WANTS_TLS = "it speaks TLS: give --tls-ca, --tls-cert and --tls-key"
"""What is said where a server answers what is no TLS as if it had been."""

CLOSED = "if it speaks TLS, give --tls-ca, --tls-cert and --tls-key; else it may be no builder-server"
"""What is said where a server closes a connection at once, without TLS and without a word."""

UNSAID = "it may be that it refuses this certificate: its log says why"
"""What is said where a server closes a connection once it has seen a certificate, without a word."""


class IncompleteTls(BuilderError, ValueError):
    """A part is missing of what TLS needs; the text says which."""

    exit_code = 2


@frozen(kw_only=True)
class Tls:
    """How TLS is spoken with a server. The files are PEM, given by their paths."""

    ca: str
    """The authorities of which the server's certificate must be one."""

    certificate: str
    key: str

    name: str | None = None
    """The name that the server's certificate must have, where that is not the host of its address."""

    @classmethod
    def of(cls, values: Mapping[str, str | None]) -> "Tls | None":
        """Return what options say by their names, None where they say nothing. Raises IncompleteTls."""
        given = {name: value for name in TLS if (value := values.get(name))}
        needed = [name for name in TLS if name != "tls-name"]
        if given and (missing := [f"--{name}" for name in needed if name not in given]):
            raise IncompleteTls(
                f"TLS needs {', '.join(f'--{name}' for name in needed)}: there is no {' and no '.join(missing)}"
            )
        if not given:
            return None
        return cls(ca=given["tls-ca"], certificate=given["tls-cert"], key=given["tls-key"], name=given.get("tls-name"))

    def options(self) -> dict[str, str | None]:
        """Return what ``of`` reads as this."""
        return {"tls-ca": self.ca, "tls-cert": self.certificate, "tls-key": self.key, "tls-name": self.name}


def variable(option: str) -> str:
    """Return how an option is called in the environment."""
    return f"BUILDER_{option.replace('-', '_').upper()}"


@frozen
class Endpoint:
    """A server."""

    address: Address
    tls: Tls | None = None
    """None stands for none. A Unix socket has none whatever is said: nobody else can read it."""

    def __str__(self) -> str:
        return str(self.address)


PATIENCE = 5.0
"""Seconds in which a server is to answer while there is another one to be tried."""


def _shuffled(servers: "Servers") -> tuple[Endpoint, ...]:
    return tuple(sorted(servers.all, key=lambda _: os.urandom(8)))  # which spares the client the import of random


@define
class Servers:
    """Servers of one farm, of which any will do: ``all`` as they were named.

    They are tried in a random order. One that does not answer comes last from then on, so that the next try begins with
    one that did.
    """

    all: tuple[Endpoint, ...]
    _order: tuple[Endpoint, ...] = field(init=False, eq=False, default=Factory(_shuffled, takes_self=True))

    @classmethod
    def of(cls, text: str, tls: Mapping[str, str | None]) -> "Servers":
        """Return the servers at addresses, with the values of options. Raises InvalidAddress and IncompleteTls."""
        return cls(
            tuple(
                Endpoint(address, Tls.of(tls) if isinstance(address, TcpAddress) else None)
                for address in parse_remotes(text)
            )
        )

    def __str__(self) -> str:
        return ",".join(map(str, self.all))

    @property
    def tls(self) -> Tls | None:
        """How TLS is spoken with those that have it."""
        return next((each.tls for each in self.all if each.tls), None)

    def overlaps(self, others: "Servers") -> bool:
        """Return whether one of them is among others, however it is spoken to."""
        return not {each.address for each in self.all}.isdisjoint(each.address for each in others.all)

    def each(self) -> Iterator[tuple[Endpoint, float]]:
        """Yield one after the other, with the most seconds that are waited for it: the last one has any number.

        Whoever asks for the next one says that the one before did not answer.
        """
        order = self._order
        for number, endpoint in enumerate(order, 1):
            yield endpoint, inf if number == len(order) else PATIENCE
            self.put_last(endpoint)

    def put_last(self, endpoint: Endpoint) -> None:
        """Have all others tried before one of them from now on."""
        self._order = (*(other for other in self._order if other != endpoint), endpoint)
