"""Takes the README's pictures of the two demo pages: ``make pictures``.

Needs Chromium: ``CHROMIUM`` in the environment, or ``/usr/bin/chromium``.
"""

import os
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
PAGES = {
    "pipeline": ROOT / "demo" / "scored" / "report.html",
    "study": ROOT / "demo" / "study" / "report.html",
}
WIDTH, HEIGHT = 1280, 900  # pixels


def main() -> None:
    """Write ``docs/pictures/NAME.png``: the first screen of each page, in light colours."""
    folder = ROOT / "docs" / "pictures"
    folder.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox"],  # these pages are our own
        )
        for name, path in PAGES.items():
            page = chromium.new_page(
                viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light"
            )
            page.goto(path.as_uri())
            page.wait_for_load_state("networkidle")
            page.screenshot(path=folder / f"{name}.png")
            print(folder / f"{name}.png")


if __name__ == "__main__":
    main()
