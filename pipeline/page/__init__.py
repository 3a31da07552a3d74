"""A report as one HTML file that opens offline: a shell, a body, styles, scripts, one JSON block.

What a report shows comes from strangers (texts, URLs, host names), so three walls stand between it
and the reader's browser: the JSON block holds no character that HTML could take for markup, the
scripts put text on the page as text nodes only, and a Content-Security-Policy allows the page's own
style and script (by hash) and no request at all.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

_UNSAFE = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
    "\x7f": "\\u007f",
}


@dataclass(frozen=True)
class Panel:
    """A table of a page: ``rows`` makes it from what the page is made from.

    A row maps columns to text, numbers, truth values or None; ``hint`` stands above the table. A
    panel without rows is not shown.
    """

    title: str
    rows: Callable[..., Sequence[Mapping[str, Any]]]
    hint: str = ""


def panel_data(panels: Mapping[str, Panel], *about: Any) -> list[dict[str, Any]]:
    """What ``panels.js`` draws of the panels that have rows, as JSON values."""
    shown = []
    for name, panel in panels.items():
        rows = panel.rows(*about)
        columns = list(dict.fromkeys(column for row in rows for column in row))
        values = [[row.get(column) for column in columns] for row in rows]
        about_it = {"name": name, "title": panel.title, "hint": panel.hint}
        shown.append({**about_it, "columns": columns, "rows": values})
    return [panel for panel in shown if panel["rows"]]


def embed_json(value: Any) -> str:
    """JSON that can stand inside a ``<script>`` element: ``</script>`` and ``<!--`` can't occur.

    Keys are sorted, so a value and its copy from a file of sorted keys give the same bytes.
    """
    text = json.dumps(
        value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False
    )
    return re.sub("[<>&\u2028\u2029\x7f]", lambda match: _UNSAFE[match[0]], text)


def assemble(title: str, body: str, scripts: Sequence[str], data: Any, style: str = "") -> str:
    """A page whose content is the HTML ``body``, drawn by ``scripts`` from ``data``.

    The scripts follow ``elements.js`` and ``charts.js``, whose helpers they use, and find the data
    in the element ``#data``; ``panels.js`` comes last, and draws ``data["panels"]``. ``style``
    follows ``style.css``. ``title`` is escaped, ``data`` is a mapping of JSON values; ``body``,
    ``scripts`` and ``style`` must be our own.
    """
    style = read("style.css") + style
    ours = read("elements.js"), read("charts.js"), *scripts, read("panels.js")
    script = "\n".join(['"use strict";', *ours])
    parts = {
        "title": html.escape(title),
        "policy": (
            f"default-src 'none'; img-src data:; style-src {_source(style)};"
            f" script-src {_source(script)}; base-uri 'none'; form-action 'none';"
            " require-trusted-types-for 'script'"
        ),
        "style": style,
        "body": body,
        "data": embed_json(data),
        "script": script,
    }
    # One pass over the shell: what is put in is never looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], read("shell.html"))


def read(name: str) -> str:
    """The text of a file of this folder."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
