"""Opens a page of ours in a real headless Chromium, and notes everything it should not do.

Needs the ``playwright`` package and a Chromium: ``CHROMIUM`` in the environment, or
``/usr/bin/chromium``.
"""

import contextlib
import os
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")

needs_browser = pytest.mark.skipif(
    not os.path.exists(CHROMIUM),
    reason=f"no Chromium at {CHROMIUM}: install it, or set CHROMIUM to its path",
)

_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


@contextlib.contextmanager
def browser():
    """A Chromium process; start one per module, opening pages is cheap."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


@contextlib.contextmanager
def opened(chromium, path, width=1280, height=900, scheme="light"):
    """The file ``path`` as a page, offline. On leaving, fails if it logged, asked or popped up.

    Console messages (with violations of its Content-Security-Policy), uncaught errors, dialogs,
    new windows and requests for anything but the file are collected in ``page.misdeeds``.
    """
    address = Path(path).resolve().as_uri()
    context = chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    page.misdeeds = misdeeds = []
    page.on("console", lambda message: misdeeds.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: misdeeds.append(f"error: {error}"))
    page.on("popup", lambda popup: misdeeds.append(f"window: {popup.url}"))

    def on_dialog(dialog):
        misdeeds.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def on_request(request):
        if request.url != address and not request.url.startswith("data:"):
            misdeeds.append(f"request: {request.url}")

    page.on("dialog", on_dialog)
    page.on("request", on_request)
    try:
        page.goto(address)
        yield page
        assert not misdeeds, "\n".join(misdeeds)
    finally:
        context.close()
