"""Pieces of a card in Markdown: tables, filled paragraphs, figures with their intervals."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; what has a meaning in Markdown is escaped in its cells."""
    lines = [titles, ["---"] * len(titles), *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill(paragraph: str, indent: str = "") -> str:
    """A paragraph in lines of at most 100 characters."""
    words = " ".join(paragraph.split())
    return textwrap.fill(
        words, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def cell(value: str | int) -> str:
    """A count or a name."""
    return f"{value:,}" if isinstance(value, int) else value


def estimate(found: Mapping[str, float]) -> str:
    """A figure with the ends of its interval."""
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _escape(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
