"""Measures how often our steps and datatrove's filters agree on a document.

    python -m venv cache/peers && cache/peers/bin/pip install 'datatrove[io,processing]==0.10.1'
    python benchmarks/datatrove_agreement.py 'corpus/*.jsonl.gz'

Both read the same English documents: JSON lines with a ``text`` and, if any, a ``lang`` of ``en``.
Prints the share of documents that both keep or both drop, per step, with words counted by white
space and as datatrove counts them; ``--show 3`` prints disagreements.
"""

import argparse
import glob
import gzip
import json
import subprocess
from typing import Any

import pyarrow as pa
from throughput import HERE, PEERS

from pipeline.settings.step_settings import resolve_steps
from pipeline.steps import build_steps

LINE_ENDS = ".?!\"'"
"""FineWeb's; newer versions of datatrove have another default."""

STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "gopher": ("gopher", {}),
    "gopher_repetition": ("gopher_repetition", {}),
    "c4": ("c4", {"line_ends": LINE_ENDS, "min_line_words": 3, "min_sentences": 5}),
    "c4 of FineWeb": ("c4", {"line_ends": "", "min_line_words": 3, "min_sentences": 5}),
    "fineweb": ("fineweb", {"line_ends": LINE_ENDS}),
}
"""Our steps with the settings of ``peers/peer_datatrove_filters.py``."""

TITLES = {
    "c4": "`c4`, as `C4QualityFilter` is by default",
    "c4 of FineWeb": "`c4`, as FineWeb has it (without `filter_no_terminal_punct`)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", nargs="+", help="JSON lines, plain or gzip; globs")
    parser.add_argument("--each", type=int, default=150, help="documents of a file: default 150")
    parser.add_argument("--show", type=int, default=0, help="documents to print for each step")
    parser.add_argument("--peers", default=str(PEERS), help="has datatrove")
    arguments = parser.parse_args()
    paths = sorted(path for pattern in arguments.corpus for path in glob.glob(pattern))
    texts = [text for path in paths for text in read(path, arguments.each)]
    theirs = peer(arguments.peers, texts)
    print(f"{len(texts):,} documents of {len(paths)} files")
    print("| step | `words: whitespace` | `words: datatrove` |\n|---|---|---|")
    for name, (step, settings) in STEPS.items():
        cells = []
        for words in ("whitespace", "datatrove"):
            ours = reasons(step, {**settings, "words": words}, texts)
            pairs = zip(ours, theirs[name], strict=True)
            differ = [i for i, (a, b) in enumerate(pairs) if (a is None) != (b is None)]
            cells.append(f"{100 - 100 * len(differ) / len(texts):.2f} %")
        print(f"| {TITLES.get(name, f'`{name}`')} | {' | '.join(cells)} |")
        for i in differ[: arguments.show]:
            print(f"  ours {ours[i]}, theirs {theirs[name][i]}: {texts[i][:300]!r}")


def read(path: str, limit: int) -> list[str]:
    texts: list[str] = []
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row.get("lang", "en") == "en" and len(texts) < limit:
                texts.append(row["text"])
    return texts


def reasons(step: str, settings: dict[str, Any], texts: list[str]) -> list[str | None]:
    """The reason why our step drops each text, or None."""
    (built,) = build_steps(resolve_steps({step: settings}))
    text = pa.array(texts, pa.large_string())
    _, codes = built(pa.RecordBatch.from_arrays([text], names=["text"]))
    return [built.reasons[code - 1] if code else None for code in codes]


def peer(python: str, texts: list[str]) -> dict[str, list[str | None]]:
    """The same for datatrove's filters, run by an interpreter that has them."""
    done = subprocess.run(
        [python, str(HERE / "peers" / "peer_datatrove_filters.py")],
        input="\n".join(json.dumps(text) for text in texts),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[str | None]] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
