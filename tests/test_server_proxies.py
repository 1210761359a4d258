"""Which proxy leads where: the variables, each in both spellings, and every form of no_proxy."""

import httpx
import pytest

from builder.errors import InvalidEnvironment
from builder_server.proxies import Proxies

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("environ", "http", "https"),
    [
        ({}, None, None),
        ({"http_proxy": PROXY}, PROXY, None),
        ({"HTTP_PROXY": PROXY}, PROXY, None),
        ({"https_proxy": PROXY}, None, PROXY),
        ({"ALL_PROXY": PROXY}, PROXY, PROXY),
        ({"all_proxy": "socks5://s", "HTTPS_PROXY": PROXY}, "socks5://s", PROXY),
        ({"http_proxy": "http://small", "HTTP_PROXY": PROXY}, "http://small", None),
        ({"http_proxy": "", "HTTP_PROXY": PROXY}, None, None),
        ({"HTTP_PROXY": "proxy:3128"}, PROXY, None),
        ({"HTTP_PROXY": "proxy"}, "http://proxy", None),
        ({"HTTP_PROXY": f" {PROXY} "}, PROXY, None),
        ({"HTTP_PROXY": "http://user:pass@proxy"}, "http://user:pass@proxy", None),
        ({"ALL_PROXY": "socks5h://[::1]:1080"}, "socks5h://[::1]:1080", "socks5h://[::1]:1080"),
        ({"FTP_PROXY": "nonsense://", "no_proxy": "::,[,*.,:80,1.2.3.4/99,a/b"}, None, None),
    ],
)
def test_the_variables(environ: dict[str, str], http: str | None, https: str | None) -> None:
    proxies = Proxies.of(environ)
    for scheme, expected in (("http", http), ("https", https)):
        found = proxies.for_url(httpx.URL(f"{scheme}://builds.example.org/upload"))
        assert found == (None if expected is None else httpx.URL(expected))


@pytest.mark.parametrize(
    "variable", ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
)
@pytest.mark.parametrize(
    "value",
    [
        "http://user:secret@[::1",
        "ftp://secret",
        "socks4://secret",
        "http://",
        "secret:99999",
        "secret:port",
        "://secret",
        "http://\udcffsecret",
    ],
)
def test_a_variable_that_is_no_proxy_is_named_and_not_told(variable: str, value: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        Proxies.of({variable: value})
    assert str(caught.value).startswith(f"{variable} ")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize(
    ("hosts", "url", "direct"),
    [
        ("*", "http://a", True),
        ("", "http://a", False),
        ("example.org", "http://example.org", True),
        ("Example.ORG", "http://EXAMPLE.org", True),
        ("example.org", "https://builds.example.org", True),
        (".example.org", "http://builds.example.org", True),
        ("*.example.org", "http://builds.example.org", True),
        ("example.org", "http://badexample.org", False),
        ("a, example.org ,b", "http://example.org", True),
        ("a example.org\tb", "http://example.org", True),
        ("example.org:8080", "http://example.org:8080", True),
        ("example.org:8080", "http://example.org", False),
        ("example.org:80", "http://example.org", True),
        ("example.org:443", "https://example.org", True),
        ("127.0.0.1", "http://127.0.0.1:9", True),
        ("127.0.0.1:9", "http://127.0.0.1:9", True),
        ("127.0.0.1:8", "http://127.0.0.1:9", False),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.1.2.3/8", "http://10.9.9.9", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("fd00::/8", "http://[fd12::1]", True),
        ("fd00::/8", "http://127.0.0.1", False),
        ("::1", "http://[::1]:9", True),
        ("[::1]", "http://[::1]:9", True),
        ("[::1]:9", "http://[::1]:9", True),
        ("[::1]:8", "http://[::1]:9", False),
        ("xn--bcher-kva.example", "http://bücher.example", True),
        ("bücher.example", "http://bücher.example", True),
        ("[::1", "http://[::1]:9", True),
        ("*:80:*", "http://a", False),
    ],
)
def test_who_is_reached_without_a_proxy(variable: str, hosts: str, url: str, direct: bool) -> None:  # noqa: FBT001
    proxies = Proxies.of({"ALL_PROXY": PROXY, variable: hosts})
    assert (proxies.for_url(httpx.URL(url)) is None) is direct
