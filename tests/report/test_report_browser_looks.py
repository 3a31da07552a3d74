"""The page of a run in a real Chromium: hostile text, its policy, its looks."""

import re

import numpy as np
import pytest
from browser import CONTRAST, HACK, needs_browser, opened
from report_run import scored, write_run

from pipeline.page import render
from pipeline.rules.decision import Rule

pytestmark = [needs_browser, pytest.mark.slow]


HOSTILE = [
    f"</script>{HACK}", f"</script {HACK}", "<!-- <script ", f"--><!--{HACK}",
    "\u2028window.hacked=1\u2029", "{{data}} {{script}}",
    "&lt;b&gt;", "\x00\x07\ufffe\u202e right to left", "</pre></details></body></html>" + HACK,
]  # fmt: skip


URLS = [
    "javascript:window.hacked=1", " javascript:window.hacked=1", "data:text/html," + HACK,
    f"https://{HACK}/", "https://ok.example/\"onmouseover='window.hacked=1'", "JaVaScRiPt://%0aalert(1)",
    "https://user@evil.example/<script>", "vbscript:x", None,
]  # fmt: skip


def test_hostile_text_is_shown_and_never_runs(chromium, tmp_path):
    n = len(HOSTILE)
    name = f"</script>{HACK}".replace("/", "\u2215")  # a file name takes no slash
    scores = np.linspace(0.05, 0.95, n)
    hostile = {
        name: scored(name, HOSTILE, URLS, scores),
        "__proto__": scored(
            "__proto__", HOSTILE, URLS, scores, reasons=["constructor", HACK] + [None] * (n - 2)
        ),
    }
    card = {HACK: HACK, "rows": [{HACK: 1, "b": HACK}], "__proto__": {"a": [HACK]}}
    value = write_run(tmp_path / "run", hostile, Rule("pareto", 1.0), set(hostile), card=card)
    value["config"]["x"] = HACK
    value["tasks"][0]["task"]["input"]["path"] = f"</script>{HACK}"
    render.write_report(str(tmp_path / "run"), value)
    with opened(chromium, tmp_path / "run" / "report.html") as page:
        for source in ("0", "1"):
            page.select_option("#source", source)
            page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
            shown = page.locator(".example pre").all_text_contents()
            assert {text for text in HOSTILE if text in shown} == set(HOSTILE)
            links = page.locator("main a").evaluate_all("all => all.map(a => [a.href, a.rel])")
            assert links
            assert all(re.match("https?://", href) and "noopener" in rel for href, rel in links)
            assert page.locator("dd", has_text="javascript:window.hacked=1").count()
        assert HACK in page.inner_text("#classifier")
        assert "window.hacked" not in page.inner_text("#domains")  # no host name has it
        assert HACK in page.locator("#provenance pre").text_content()
        assert HACK in page.inner_text("#reasons")
        assert page.locator("main img, main script, main iframe").count() == 0
        for place in page.locator(".example summary").all()[:3]:
            place.hover()
        assert page.evaluate("window.hacked") is None


def test_the_policy_stops_what_should_never_be_there(chromium, run, tmp_path):
    # Were a script or request to get into the page despite all, the browser itself refuses it.
    html = (run[0] / "report.html").read_text()
    broken = html.replace("<noscript>", f"{HACK}<noscript>").replace(
        "</body>", "<img src='https://tracker.example/a.png'></body>"
    )
    path = tmp_path / "broken.html"
    path.write_text(broken)
    with pytest.raises(AssertionError, match="Content Security Policy"):
        with opened(chromium, path) as page:
            assert page.evaluate("window.hacked") is None
            page.wait_for_timeout(500)  # the browser reports violations when it gets to it
            told = [m for m in page.misdeeds if "Content Security Policy" in m]
            assert any("inline script" in m for m in told)
            assert any("inline event handler" in m for m in told)
            assert any("tracker.example" in m for m in told)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_it_fits_and_can_be_read(chromium, run, scheme, width):
    with opened(chromium, run[0] / "report.html", width=width, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) < 300) == (scheme == "dark")
        page.evaluate("document.getElementById('domains').scrollIntoView()")
        assert 0 <= page.locator("#control").bounding_box()["y"] < 20
        for chart in ("curve", "histogram", "rates"):
            box = page.locator(f"#{chart} svg").bounding_box()
            assert 200 < box["width"] <= width


def test_charts_follow_the_width_of_the_window(chromium, run):
    with opened(chromium, run[0] / "report.html", width=1280) as page:
        wide = page.locator("#curve svg").bounding_box()["width"]
        page.set_viewport_size({"width": 500, "height": 800})
        page.wait_for_function(f"document.querySelector('#curve svg').clientWidth < {wide / 2}")
