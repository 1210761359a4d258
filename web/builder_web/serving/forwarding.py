"""What proxies say of a request: only those are believed that the operator named."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

Network = IPv4Network | IPv6Network

_SCHEMES = ("http", "https")


class Forwarding:
    """Gives the application a request as the first proxy got it: who asked, by which scheme and host, for which path.

    ``prefix`` is the path below which the site is, without a slash at its end: proxies may leave it, or take it off.
    """

    def __init__(self, application: ASGIApp, *, trusted: Sequence[Network], prefix: str) -> None:
        self._application = application
        self._trusted = trusted
        self._prefix = prefix.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope = {**scope, "raw_path": self._below(scope["raw_path"])}
        address, port = scope["client"] or ("", 0)
        if self._is_trusted(_address(address)):
            said = _Said(scope["headers"])
            scope["client"] = (self._first(address, said.list_of(b"x-forwarded-for")), port)
            if (scheme := said.last(b"x-forwarded-proto").lower()) in _SCHEMES:
                scope["scheme"] = scheme
            if host := said.last(b"x-forwarded-host"):
                others = [(name, value) for name, value in scope["headers"] if name != b"host"]
                scope["headers"] = [(b"host", host.encode("latin-1")), *others]
        await self._application(scope, receive, send)

    def _below(self, path: bytes) -> bytes:
        if self._prefix and (path == self._prefix or path.startswith(self._prefix + b"/")):
            return path[len(self._prefix) :] or b"/"
        return path

    def _first(self, address: str, forwarded: Sequence[str]) -> str:
        """Return the last address that no trusted proxy has: whatever stands before it, anybody may have written."""
        for said in reversed(forwarded):
            found = _address(said)
            if found is None:
                break
            address = str(found)
            if not self._is_trusted(found):
                break
        return address

    def _is_trusted(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


class _Said:
    """Headers that may be there several times, or hold several values."""

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._headers = headers

    def list_of(self, name: bytes) -> list[str]:
        """Return all values, in their order."""
        values = [value.decode("latin-1") for key, value in self._headers if key == name]
        return [item.strip() for value in values for item in value.split(",") if item.strip()]

    def last(self, name: bytes) -> str:
        """Return the value that the nearest proxy set, or nothing."""
        return self.list_of(name)[-1] if self.list_of(name) else ""


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address as proxies write it: some add a port, and put IPv6 into brackets then."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ip_address(text)
    except ValueError:
        return None
