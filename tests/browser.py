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
    """A Chromium process; start one per module."""
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

    One page after the other is opened in the same tab: a new one costs three times as much.
    """
    address = Path(path).resolve().as_uri()
    tabs = vars(chromium).setdefault("tabs", [])
    page = tabs.pop() if tabs else chromium.new_context(offline=True).new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme=scheme)
    page.misdeeds = misdeeds = []

    def on_dialog(dialog):
        misdeeds.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def on_request(request):
        if request.url != address and not request.url.startswith("data:"):
            misdeeds.append(f"request: {request.url}")

    listeners = {
        "console": lambda message: misdeeds.append(f"console: {message.text}"),
        "pageerror": lambda error: misdeeds.append(f"error: {error}"),
        "popup": lambda popup: misdeeds.append(f"window: {popup.url}"),
        "dialog": on_dialog,
        "request": on_request,
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    try:
        page.goto(address)
        yield page
        assert not misdeeds, "\n".join(misdeeds)
    except BaseException:
        page.context.close()
        raise
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    page.mouse.move(0, 0)
    page.goto("about:blank")
    tabs.append(page)
