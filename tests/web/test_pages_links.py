"""Addresses: as the original makes them, each name encoded once."""

import pytest

from builder_web.pages.links import Links

ODD = "ünï cödé 100% + a&b;c=d?#x"
UUID = "68d4daa2-0c18-4cae-888e-ba9a7e5770b7"
JOB = "/job/%C3%BCn%C3%AF%20c%C3%B6d%C3%A9%20100%25%20%2B%20a%26b%3Bc%3Dd%3F%23x"


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("bin/a b%20c", "bin/a%20b%2520c"),
        ("a+b&c=d.html", "a+b&c=d.html"),
        ("q?x=1#frag.json", "q%3Fx=1%23frag.json"),
        ("ünï/☃.svg", "%C3%BCn%C3%AF/%E2%98%83.svg"),
        ("semi;colon,comma.css", "semi;colon,comma.css"),
        ("quote\"'<b>.md", "quote%22'%3Cb%3E.md"),
        ("back\\slash.js", "back%5Cslash.js"),
        ("bad \udcff bytes", "bad%20%FF%20bytes"),
    ],
)
def test_an_artifact_has_the_address_of_the_original(path: str, address: str) -> None:
    assert Links().artifact(ODD, UUID, path) == f"{JOB}/build/{UUID}/f/{address}"


def test_names_are_encoded_once() -> None:
    links = Links()
    assert links.job("a%20b") == "/job/a%2520b"
    assert links.job(ODD, platform="my platförm %2F") == f"{JOB}?platform=my%20platf%C3%B6rm%20%252F"
    assert links.job("x", platform="debian-12", failed=True) == "/job/x/failed?platform=debian-12"
    assert (
        links.failed_builds(count=2, start=2, platform="freebsd-14")
        == "/failed-builds?count=2&start=2&platform=freebsd-14"
    )
    assert links.console("x", UUID, line=5) == f"/job/x/build/{UUID}/console/view?line=5"
    assert links.search("a&b") == "/search?q=a%26b"


def test_a_prefix_and_an_origin_come_first() -> None:
    links = Links(prefix="/builds", origin="https://x.example.org")
    assert links.home() == "/builds/"
    assert links.whole(links.feed(job="a", failures=True)) == "https://x.example.org/builds/job/a/failed.atom"
    assert links.static("style.css", "abc") == "/builds/static/style.css?v=abc"
