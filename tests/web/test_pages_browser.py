"""The pages in a real browser, headless: what it complains of, what axe finds, how they fit a telephone, without JavaScript."""

import datetime as dt
import shutil
from collections.abc import Iterator

import examples
import gallery
import pytest
from operators import need

pytest.importorskip("playwright", reason="playwright has no driver for this system")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

CHROMIUM = shutil.which("chromium")
TELEPHONE: ViewportSize = {"width": 320, "height": 640}
DESK: ViewportSize = {"width": 1280, "height": 800}
NOW = dt.datetime(2026, 11, 26, 16, 0, tzinfo=dt.UTC)

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with gallery.served() as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need("chromium", ["chromium"])
    with sync_playwright() as playwright:
        # The sandbox of chromium needs namespaces that containers often lack; it opens nothing but these pages
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """A page of a telephone, and what the browser complains of in it."""
    context = browser.new_context(viewport=TELEPHONE, permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.clock.set_fixed_time(NOW)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"a script ran: {dialog.message}"))
    yield page, complaints
    context.close()


@pytest.fixture
def page(tab: tuple[Page, list[str]]) -> Iterator[Page]:
    """A page of a telephone; the test fails when the browser complains."""
    page, complaints = tab
    complaints.clear()
    page.set_viewport_size(TELEPHONE)
    page.emulate_media(color_scheme="light")
    yield page
    assert complaints == []


def overflow(page: Page) -> int:
    """Return how many pixels a page is wider than the screen."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def faults(page: Page, **options: object) -> list[str]:
    """Return what axe finds that is serious for some people."""
    found = Axe().run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [
        f"{fault['id']}: {fault['help']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for fault in found
        if fault["impact"] in {"serious", "critical", "moderate"}
        for node in fault["nodes"][:3]
    ]


@pytest.mark.parametrize("name", examples.ordinary())
def test_everybody_can_use_a_page(page: Page, address: str, name: str) -> None:
    page.goto(f"{address}/{name}")
    assert overflow(page) == 0
    assert faults(page) == []
    page.set_viewport_size(DESK)
    page.emulate_media(color_scheme="dark")
    assert overflow(page) == 0
    assert faults(page, runOnly=["color-contrast"]) == []


@pytest.mark.parametrize("name", examples.hostile())
def test_hostile_texts_neither_run_nor_widen_a_page(page: Page, address: str, name: str) -> None:
    page.goto(f"{address}/{name}")
    assert overflow(page) == 0


def test_a_page_says_all_without_scripts(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport=TELEPHONE, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/build-different")
    assert page.get_by_role("heading", level=1).inner_text() == "Build 2026-11-26 12:00:00Z"
    assert page.locator("time").nth(1).inner_text() == "2026-11-25 09:00:00Z"
    assert page.get_by_role("link", name="Why does it differ?").is_visible()
    assert page.locator("button:visible").all_inner_texts() == ["Search"]
    page.get_by_role("searchbox").fill("hello")
    page.get_by_role("button", name="Search").click()
    assert page.url == f"{address}/search?q=hello"
    context.close()


def test_times_are_relative_with_the_exact_one_on_hover(page: Page, address: str) -> None:
    page.goto(f"{address}/build")
    time = page.locator(".facts time")
    assert (time.inner_text(), time.get_attribute("title")) == ("4 hours ago", "2026-11-26 12:00:00Z")
    page.goto(f"{address}/job")
    time = page.locator(".entries time").last
    assert (time.inner_text(), time.get_attribute("title")) == ("2026-10-26", "2026-10-26 03:00:00Z")


def test_a_hash_is_copied_whole(page: Page, address: str) -> None:
    page.goto(f"{address}/build")
    page.locator(".files .copy").first.click()
    page.locator(".copy.done").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == examples.ARTIFACTS[0].sha256


def test_a_chosen_theme_is_kept(page: Page, address: str) -> None:
    page.goto(f"{address}/main")
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Theme: auto").click()
    page.get_by_role("button", name="Theme: light").click()
    dark = page.evaluate(colour)
    assert dark != light
    page.goto(f"{address}/job")
    assert page.evaluate(colour) == dark
    page.get_by_role("button", name="Theme: dark").click()
    assert page.evaluate(colour) == light


def test_keys_lead_to_the_content_and_to_the_search(page: Page, address: str) -> None:
    page.goto(f"{address}/main")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.locator(".skip").bounding_box()["x"] == 0  # type: ignore[index]
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"


def test_jobs_are_on_the_first_screen_of_a_telephone(page: Page, address: str) -> None:
    page.goto(f"{address}/main")
    assert page.get_by_role("link", name="dns-primary", exact=True).bounding_box()["y"] < 340  # type: ignore[index]
    assert page.get_by_text("Failed lately").bounding_box()["y"] < TELEPHONE["height"] / 4  # type: ignore[index]


def test_what_was_found_in_a_console_is_marked(page: Page, address: str) -> None:
    page.goto(f"{address}/console-found")
    marked = page.evaluate("[...CSS.highlights.get('found')].map(range => range.toString())")
    assert marked == ["Warning"] * 5


def test_an_address_with_a_line_shows_that_line(page: Page, address: str) -> None:
    page.goto(f"{address}/console#L12380")
    box = page.locator("#L12380").bounding_box()
    assert box is not None
    assert 0 < box["y"] < TELEPHONE["height"]
