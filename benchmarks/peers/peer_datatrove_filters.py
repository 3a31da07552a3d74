"""Runs datatrove's filters on the texts on stdin, for benchmarks/datatrove_agreement.py.

Reads a JSON string per line; prints each filter's reasons for dropping, null for texts that pass.
Needs an interpreter with datatrove and spaCy.
"""

import json
import sys
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

LINE_ENDS = tuple(".?!\"'")


def reason(check: Any, text: str) -> str | None:
    try:
        result = check.filter(Document(text=text, id=""))  # a new document, as C4 changes it
    except ZeroDivisionError:  # no line or no word
        return "empty"
    return None if result is True else str(result[1])


if __name__ == "__main__":
    filters = {
        "gopher": GopherQualityFilter(),
        "gopher_repetition": GopherRepetitionFilter(),
        "c4": C4QualityFilter(),
        "c4 of FineWeb": C4QualityFilter(filter_no_terminal_punct=False),
        "fineweb": FineWebQualityFilter(stop_chars=LINE_ENDS),
    }
    texts = [json.loads(line) for line in sys.stdin]
    json.dump(
        {name: [reason(f, text) for text in texts] for name, f in filters.items()}, sys.stdout
    )
