"""A real site in a real browser: the recorded uploads and some of a farm's, page by page along its links."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import populated
import pytest
from bodies import body
from sites import make_directory

pytest.importorskip("playwright", reason="playwright has no driver for this system")

from playwright.sync_api import Browser, Page, sync_playwright
from test_pages_browser import CHROMIUM, TELEPHONE, faults, overflow

pytestmark = [
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]

HELLO = "640bbf47-f6c1-49f3-b615-e2c885a442c9"  # the recorded upload hello-1
EVIL = b"""<!doctype html><html lang="en"><title>tame</title><h1>evil</h1>
<script>document.title = "ran"; fetch("/")</script><img src="/static/icon.svg" onerror="document.title = 'ran'"></html>"""
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><title>tame</title><script>document.title = "ran"</script></svg>'
README = (
    b"# Evil\n\n<script>document.title = 'ran'</script> [a](javascript:alert(1)) ![p](https://evil.example/p.png)\n"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    evil = body(1, job="evil", artifacts={"bin/evil": b"x", "a.html": EVIL, "a.svg": SVG, "README.md": README})
    uploads = [*populated.recorded(), *populated.bodies(populated.farm(2, 4)), evil]
    with populated.served_site(make_directory(tmp_path_factory.mktemp("site") / "data"), uploads) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a telephone; the test fails when the browser complains."""
    context = browser.new_context(viewport=TELEPHONE)
    page = context.new_page()
    page.clock.set_fixed_time(populated.now())
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{page.url}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    yield page
    context.close()
    assert complaints == []


def kind(address: str) -> str:
    """Return what is the same in the addresses of pages of one kind."""
    path = re.sub("[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{64}", "*", urlsplit(address).path.rstrip("/"))
    return re.sub("^/job/[^/]+", "/job/*", path)


FILES = re.compile(r"/f/|/(exec|all\.tar\.gz|script|console|main-binary|viz\w+)$|\.(atom|svg)$")


KINDS = {
    "",
    "/all-builds",
    "/compare/*/*",
    "/failed-builds",
    "/hash/*",
    "/job/*",
    "/job/*/build/*",
    "/job/*/build/*/console/view",
    "/job/*/build/*/script/view",
    "/job/*/failed",
    "/search",
}


@pytest.mark.parametrize(
    "kinds", [{"", "/compare/*/*", "/job/*/build/*"}, pytest.param(KINDS, marks=pytest.mark.long)], ids=["some", "all"]
)
def test_everybody_can_use_every_page(page: Page, address: str, kinds: set[str]) -> None:
    first = ("", "search?q=dune", f"job/hello-hvt/build/{HELLO}")
    waiting, seen, found = [f"{address}/{path}" for path in first], set(), {""}
    while waiting:
        target = waiting.pop(0)
        found.add(what := kind(target))
        if what in seen or what not in kinds:
            continue
        seen.add(what)
        answer = page.goto(target)
        assert answer is not None
        assert answer.status == 200, target
        assert overflow(page) == 0, target
        assert faults(page) == [], target
        links = page.evaluate("[...document.querySelectorAll('a[href]')].map(link => link.href.split('#')[0])")
        waiting += [link for link in links if link.startswith(address) and not FILES.search(urlsplit(link).path)]
    assert seen == kinds
    assert found <= KINDS


def test_a_visitor_without_scripts_gets_from_the_first_page_to_why_a_build_differs(
    browser: Browser, address: str
) -> None:
    context = browser.new_context(viewport=TELEPHONE, java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    page.get_by_role("searchbox").fill("hello-hvt")
    page.get_by_role("button", name="Search").click()
    page.locator("ul.hits a.job", has_text="hello-hvt").click()
    page.locator(".entries a.build").last.click()
    page.get_by_role("link", name="Why does it differ?").click()
    assert "/compare/" in page.url
    assert page.get_by_text("Different output from the same input").is_visible()
    context.close()


def test_what_was_uploaded_does_not_run(browser: Browser, address: str) -> None:
    for path in ("f/a.html", "f/a.svg", "console/view", "script/view", ""):
        _visit_uploaded(browser, address, path)


def _visit_uploaded(browser: Browser, address: str, path: str) -> None:
    context = browser.new_context()  # of its own: else the icon of another page may still come
    page = context.new_page()
    sent: list[str] = []
    page.on("response", lambda response: sent.append(response.url))
    page.goto(f"{address}/job/evil/build/latest/{path}".rstrip("/"))
    page.wait_for_load_state()
    assert page.title() != "ran", path
    if path.startswith("f/"):
        assert len(sent) == 2, sent  # the redirect and the document
    page.goto(f"{address}/job/evil")
    assert page.title() == "Job evil", path
    assert not [url for url in sent if not url.startswith(address)]
    context.close()
