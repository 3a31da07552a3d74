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


HACK = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"

CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("header *, main *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.getClientRects().length || node.closest(":disabled, svg, select")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([ratio, node.outerHTML.slice(0, 80)]);
  }
  return poor;
}"""
