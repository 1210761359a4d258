import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.address import TcpAddress, UnixAddress, format_address, parse_address, parse_remote
from builder.errors import BuilderError, InvalidAddress


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:1234", ("127.0.0.1", 1234)),
        ("127.0.0.1", ("127.0.0.1", 77)),
        ("localhost:1", ("localhost", 1)),
        ("builds.example.org:65535", ("builds.example.org", 65535)),
        ("host.", ("host.", 77)),
        ("my_server:80", ("my_server", 80)),
        ("[::1]:1234", ("::1", 1234)),
        ("[::1]", ("::1", 77)),
        ("::1", ("::1", 77)),
        ("[fe80::1%eth0]:9", ("fe80::1%eth0", 9)),
        ("::ffff:10.0.0.1", ("::ffff:10.0.0.1", 77)),
    ],
)
def test_an_address_is_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text, default_port=77) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1234",
        "host:",
        "host:0",
        "host:65536",
        "host:http",
        "host:-1",
        "host:+1",
        "host:1 ",
        "host:١",
        "ho st:1",
        "host/path",
        "http://host:1",
        "user@host:1",
        "-host:1",
        "hôst:1",
        "\x1b[31m:1",
        "[::1",
        "[::1]1234",
        "[::1]:",
        "[host]:1",
        "1:2:3",
        "::1%a]b",
        "::1%\x1b",
        "::1%",
        "a" * 254,
    ],
)
def test_nonsense_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        parse_address(text)
    message = str(caught.value)
    assert message.isprintable()
    assert "HOST:PORT" in message
    assert isinstance(caught.value, BuilderError)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://host:1", "leave https:// out; write HOST:PORT"),
        ("/run/builder/socket", "of a socket write unix:/run/builder/socket"),
        ("./socket", "of a socket write unix:./socket"),
    ],
)
def test_what_people_write_instead(text: str, said: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        parse_remote(text)
    assert said in str(caught.value)


def test_the_default_port_is_the_originals() -> None:
    assert parse_address("localhost") == ("localhost", 1234)


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        host, port = parse_address(text)
    except InvalidAddress:
        return
    assert parse_address(format_address(host, port)) == (host, port)


@given(st.one_of(st.ip_addresses(), st.from_regex(r"[a-z][a-z0-9.]{0,20}", fullmatch=True)), st.integers(1, 65535))
def test_what_is_formatted_reads_back(host: ipaddress.IPv4Address | ipaddress.IPv6Address | str, port: int) -> None:
    assert parse_address(format_address(str(host), port)) == (str(host), port)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/builder/socket", UnixAddress("/run/builder/socket")),
        ("unix:relative", UnixAddress("relative")),
        ("unix:" + "x" * 103, UnixAddress("x" * 103)),
        ("[::1]:5", TcpAddress("::1", 5)),
    ],
)
def test_a_server_is_reached_by_tcp_or_a_socket(text: str, expected: TcpAddress | UnixAddress) -> None:
    assert parse_remote(text) == expected
    assert parse_remote(str(expected)) == expected


@pytest.mark.parametrize("text", ["unix:", "unix:" + "x" * 104, "unix:/a\0b", "unix:" + "å" * 52, "tcp:/x"])
def test_what_is_no_path_of_a_socket(text: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        parse_remote(text)
    assert str(caught.value).isprintable()


def test_odd_paths_are_shown_as_escapes() -> None:
    assert str(UnixAddress("/a\x1b[2J")) == "unix:/a\\x1b[2J"
