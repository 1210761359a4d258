"""Whom a request is taken to come from, behind proxies that are trusted and others, and below a prefix."""

from ipaddress import ip_network
from typing import Any

import pytest

from builder_web.serving.forwarding import Forwarding

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("::1")]


async def forwarded(client: str, *headers: tuple[str, str], path: str = "/", prefix: str = "") -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    async def application(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(dict(scope))

    scope = {
        "client": (client, 1),
        "scheme": "http",
        "raw_path": path.encode(),
        "headers": [(b"host", b"inside"), *((name.encode(), value.encode()) for name, value in headers)],
    }
    await Forwarding(application, trusted=TRUSTED, prefix=prefix)(scope, None, None)  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),  # nobody that is trusted
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.1, 198.51.100.1", "198.51.100.1"),  # the first anybody may have written
        ("10.0.0.1", "192.0.2.1, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("::1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
async def test_the_client_is_the_last_that_no_trusted_proxy_is(peer: str, said: str, client: str) -> None:
    assert (await forwarded(peer, ("x-forwarded-for", said)))["client"] == (client, 1)


async def test_scheme_and_host_are_those_that_a_trusted_proxy_says() -> None:
    said = (("x-forwarded-proto", "https"), ("x-forwarded-host", "builds.example.org"))
    scope = await forwarded("10.0.0.1", *said)
    assert scope["scheme"] == "https"
    assert dict(scope["headers"])[b"host"] == b"builds.example.org"
    assert [name for name, _ in scope["headers"]].count(b"host") == 1
    scope = await forwarded("203.0.113.5", *said)
    assert scope["scheme"] == "http"
    assert dict(scope["headers"])[b"host"] == b"inside"
    assert (await forwarded("10.0.0.1", ("x-forwarded-proto", "javascript")))["scheme"] == "http"


@pytest.mark.parametrize(
    ("path", "below"),
    [("/builds", "/"), ("/builds/", "/"), ("/builds/job/a", "/job/a"), ("/job/a", "/job/a"), ("/buildsx", "/buildsx")],
)
async def test_a_prefix_may_be_there_or_not(path: str, below: str) -> None:
    assert (await forwarded("203.0.113.5", path=path, prefix="/builds"))["raw_path"] == below.encode()
