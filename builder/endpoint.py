"""A server as its clients and workers are told of it: where it is, and how it is spoken to. Nothing is opened here."""

from collections.abc import Mapping

from attrs import frozen

from builder.address import Address, TcpAddress, parse_remote
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

    @classmethod
    def of(cls, text: str, tls: Mapping[str, str | None]) -> "Endpoint":
        """Return the server at an address, with the values of options. Raises InvalidAddress and IncompleteTls."""
        address = parse_remote(text)
        return cls(address, Tls.of(tls) if isinstance(address, TcpAddress) else None)

    def __str__(self) -> str:
        return str(self.address)
