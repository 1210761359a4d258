"""Write screenshots of the example pages: `python tests/web/screenshots.py FOLDER [NAME]...`.

Each page is taken on a desk and on a telephone, light and dark: for whoever works on style, and for docs/web.md.
"""

import datetime as dt
import shutil
import sys
from pathlib import Path

import examples
import gallery
from playwright.sync_api import ViewportSize, sync_playwright

NOW = dt.datetime(2026, 11, 26, 16, 0, tzinfo=dt.UTC)
SCREENS: dict[str, ViewportSize] = {
    "desk": {"width": 1280, "height": 800},
    "telephone": {"width": 375, "height": 720},
}


def main(folder: Path, names: list[str]) -> None:
    """Take the pages with these names, or all ordinary ones."""
    folder.mkdir(parents=True, exist_ok=True)
    with gallery.served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for screen, size in SCREENS.items():
            page = browser.new_page(viewport=size)
            page.clock.set_fixed_time(NOW)
            for name in names or examples.ordinary():
                page.goto(f"{address}/{name}")
                page.emulate_media(color_scheme="light")
                page.screenshot(path=folder / f"{name}-{screen}-light.png", full_page=True)
                page.emulate_media(color_scheme="dark")
                page.screenshot(path=folder / f"{name}-{screen}-dark.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
