"""Which proxy leads to a URL, by the variables that curl and others read; pure.

They are ``http_proxy``, ``https_proxy``, ``all_proxy`` and ``no_proxy``. Each may be written in capitals as well, and
counts in small letters if it is there twice; an empty one is as none.
"""

import ipaddress
from collections.abc import Mapping

import httpx
from attrs import frozen

from builder.errors import InvalidEnvironment

_SCHEMES = ("http", "https")
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


@frozen(kw_only=True)
class Proxies:
    """The proxies by the scheme of the URLs they are for, and the hosts that are reached without any."""

    by_scheme: Mapping[str, httpx.URL]
    direct: tuple[str, ...]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Proxies":
        """Return what an environment says. Raises InvalidEnvironment, which names the variable but not its value."""
        by_scheme = {}
        for scheme in _SCHEMES:
            for variable in (f"{scheme}_proxy", "all_proxy"):
                name, value = _lookup(environ, variable)
                if value:
                    by_scheme[scheme] = _proxy(name, value)
                    break
        _, hosts = _lookup(environ, "no_proxy")
        return cls(by_scheme=by_scheme, direct=tuple(hosts.lower().replace(",", " ").split()))

    def for_url(self, url: httpx.URL) -> httpx.URL | None:
        """Return the proxy through which a URL is to be reached."""
        if any(_covers(entry, url) for entry in self.direct):
            return None
        return self.by_scheme.get(url.scheme)


def _lookup(environ: Mapping[str, str], variable: str) -> tuple[str, str]:
    for name in (variable, variable.upper()):
        if name in environ:
            return name, environ[name].strip()
    return variable, ""


def _proxy(name: str, value: str) -> httpx.URL:
    try:
        url = httpx.URL(value if "://" in value else f"http://{value}")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise InvalidEnvironment(f"{name} is no URL of a proxy") from error  # without it: it may hold a password
    if url.scheme not in _PROXY_SCHEMES:
        raise InvalidEnvironment(f"{name} must begin with http://, https://, socks5:// or socks5h://")
    if not url.host or (url.port is not None and not 1 <= url.port <= 65535):
        raise InvalidEnvironment(f"{name} must name a host, and a port from 1 to 65535")
    return url


def _covers(entry: str, url: httpx.URL) -> bool:
    """Say whether an entry of no_proxy is about a URL: ``*``, an address, a network, or a domain, with or without port.

    An entry that is none of these is about nothing.
    """
    if entry == "*":
        return True
    host = url.raw_host.decode("ascii").lower()
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:  # one of them is a name, or there is a port
        pass
    name, colon, port = entry.rpartition(":")
    if colon and port.isdecimal():
        default = {"http": 80, "https": 443}[url.scheme]
        if int(port) != (url.port or default):
            return False
        entry = name.strip("[]")
    domain = entry.removeprefix("*").removeprefix(".")
    return bool(domain) and any(
        name == domain or name.endswith(f".{domain}")
        for name in (host, url.host.lower())  # the latter in any alphabet
    )
