"""Makes the pictures of web.md again: serves a site with some weeks of builds, and looks at it with Chromium.

.venv/bin/python docs/web_screenshots.py
"""

import shutil
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER.parent / "tests" / "web"), str(FOLDER.parent / "tests")]

import populated  # noqa: E402 - the tests' parts, found above
from playwright.sync_api import Page, ViewportSize, sync_playwright  # noqa: E402
from sites import make_directory  # noqa: E402
from small_png import shrink  # noqa: E402

JOBS, BUILDS = 8, 30
DESK: ViewportSize = {"width": 960, "height": 600}
LONG: ViewportSize = {"width": 960, "height": 900}
"""For a comparison, whose most telling part is below its numbers."""
TELEPHONE: ViewportSize = {"width": 375, "height": 600}


def pages(page: Page, address: str) -> dict[str, str]:
    """Return the address of each page by the name of its picture."""

    def links(path: str, selector: str) -> list[str]:
        page.goto(path)
        return [
            str(link) for link in page.evaluate(f"[...document.querySelectorAll('{selector}')].map(one => one.href)")
        ]

    good = links(f"{address}/job/dns-primary", ".entries a.build")[0]
    for bad in links(f"{address}/job/vpn-gateway", ".entries a.build"):
        if why := links(bad, ".verdict.differs .actions a"):
            break
    failed = links(f"{address}/failed-builds", "ul.failures a.build")[0]
    return {
        "main": f"{address}/",
        "job": f"{address}/job/dns-primary",
        "build": bad,
        "comparison": why[0],
        "reproduced": good,
        "failed-build": failed,
        "console": f"{failed}/console/view",
        "script": f"{good}/script/view",
        "dependencies": f"{good}#dependencies",
        "treemap": f"{good}#treemap",
        "failed": f"{address}/failed-builds",
        "hash": links(good, ".files a.hash")[0],
        "search": f"{address}/search?q=dune",
        "missing": f"{address}/job/dns-secondary",
    }


def main(folder: Path) -> None:
    """Write the pictures: each page light and dark, the first ones on a telephone too."""
    folder.mkdir(exist_ok=True)
    builds = populated.bodies(populated.farm(JOBS, BUILDS))
    with (
        tempfile.TemporaryDirectory() as data,
        populated.served_site(make_directory(Path(data) / "data"), builds) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=DESK)
        page.clock.set_fixed_time(populated.now())
        found = pages(page, address)
        for name, target in found.items():
            page.set_viewport_size(LONG if name == "comparison" else DESK)
            _take(page, target, folder, name)
        page.set_viewport_size(TELEPHONE)
        for name in ("main", "build"):
            _take(page, found[name], folder, f"{name}-telephone")
        browser.close()


def _take(page: Page, target: str, folder: Path, name: str) -> None:
    page.goto(target)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
        (folder / f"{name}-{scheme}.png").write_bytes(shrink(page.screenshot()))


if __name__ == "__main__":
    main(FOLDER / "web")
