"""A report as one HTML file that opens offline: a shell, a body, styles, scripts, one JSON block.

The texts, URLs and host names of a report are untrusted, so three measures protect the browser: the
JSON block has no markup characters, the scripts add text as text nodes only, and a
Content-Security-Policy allows only the page's style and script (by hash), and no requests.
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


@dataclass(frozen=True)
class Panel:
    """A table of a page, with a ``hint`` above; hidden if it has no rows.

    ``rows`` makes rows from the arguments of :func:`panel_data`; a row maps columns to text,
    numbers, booleans or None.
    """

    title: str
    rows: Callable[..., Sequence[Mapping[str, Any]]]
    hint: str = ""


def panel_data(panels: Mapping[str, Panel], *about: Any) -> list[dict[str, Any]]:
    """The panels that have rows, as JSON values for ``panels.js``."""
    shown = []
    for name, panel in panels.items():
        if rows := panel.rows(*about):
            columns = list(dict.fromkeys(column for row in rows for column in row))
            values = [[row.get(column) for column in columns] for row in rows]
            head = {"name": name, "title": panel.title, "hint": panel.hint}
            shown.append({**head, "columns": columns, "rows": values})
    return shown


def embed_json(value: Any) -> str:
    """JSON with sorted keys that is safe in a ``<script>``: without ``</script>`` and ``<!--``."""
    text = json.dumps(
        value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False
    )
    return re.sub("[<>&\u2028\u2029\x7f]", lambda match: f"\\u{ord(match[0]):04x}", text)


def assemble(title: str, body: str, scripts: Sequence[str], data: Any, style: str = "") -> str:
    """A page with the HTML ``body``, filled by ``scripts`` from ``data``, a mapping in ``#data``.

    The scripts follow ``elements.js`` and ``charts.js``, whose helpers they use; ``panels.js``
    comes last and draws ``data["panels"]``. ``style`` follows ``style.css``. ``title`` is escaped;
    ``body``, ``scripts`` and ``style`` must be trusted.
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
    # One pass over the shell: inserted text is never substituted again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], read("shell.html"))


def read(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
