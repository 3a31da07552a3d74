"""Documents that steps passed unchecked, lacking settings for their language."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

_SHOWN = 8


def unchecked(manifest: Mapping[str, Any]) -> dict[str, Counter[str]]:
    """How many documents each step passed unchecked, by language."""
    totals: dict[str, Counter[str]] = {}
    for record in manifest["tasks"]:
        for step, languages in record.get("unchecked", {}).items():
            totals.setdefault(step, Counter()).update(languages)
    return totals


def unchecked_rows(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each step and language of :func:`unchecked`, the most documents first."""
    rows = [
        {"step": step, "language": language, "documents": count}
        for step, languages in unchecked(manifest).items()
        for language, count in languages.items()
    ]
    return sorted(rows, key=lambda row: (-row["documents"], row["step"], row["language"]))


def notes(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each step of a finished run that passed documents unchecked."""
    lines = []
    for step, languages in unchecked(manifest).items():
        most = sorted(languages.items(), key=lambda item: (-item[1], item[0]))
        counts = ", ".join(f"{count:,} in {language}" for language, count in most[:_SHOWN])
        more = f" and {len(most) - _SHOWN} more languages" if len(most) > _SHOWN else ""
        lines.append(
            f"{step} passed {sum(languages.values()):,} documents unchecked, as their languages"
            f' have no settings: {counts}{more}; give them some, or "*" for all others'
        )
    return lines
