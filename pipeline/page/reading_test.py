"""A blind reading test: its pairs and answers, and how often reader and score agree.

``reading/pairs.arrow`` and ``reading/answers-….json`` of other runs are ignored.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.output.summary import Summary
from pipeline.page.data.totals import clip
from pipeline.page.reading_pairs import EDGES, draw_pairs
from quality_classifier.evaluation.metrics import wilson
from winnow.filesystem import storage, tables

FOLDER = "reading"
MOST_PAIRS = 200
FORMAT = "winnow reading test 1"
CHOICES = ("left", "right", "neither")
READER_CHARACTERS = 60

ANSWERS = pa.schema(
    [*tables.required(reader=pa.string(), distance=pa.float64()), pa.field("agrees", pa.bool_())]
)
"""Readers' answers: ``distance`` of the scores; ``agrees`` if the better document has the higher
score, null if the reader could not tell."""

_FILE = re.compile(r"answers-[0-9a-f]{16}\.json")
_RUN = b"run"

Json = dict[str, Any]


@dataclass(frozen=True)
class ReadingTest:
    """A run's pairs (:data:`~pipeline.page.reading_pairs.PAIRS`) and the answers so far."""

    run: str
    pairs: pa.Table
    answers: pa.Table

    @property
    def fingerprint(self) -> str:
        """A hash of the run and of all ids in order."""
        columns = [self.pairs[f"{side}_id"].to_pylist() for side in ("left", "right")]
        return xxhash.xxh3_128_hexdigest(json.dumps([self.run, *columns]).encode())

    def page_data(self) -> Json:
        return {
            "format": FORMAT,
            "run": self.run,
            "fingerprint": self.fingerprint,
            "edges": list(EDGES),
            "pairs": [
                {
                    "source": clip(row["source"]),
                    "texts": [row["left_text"], row["right_text"]],
                    "cut": [row["left_cut"], row["right_cut"]],
                    "scores": [row["left_score"], row["right_score"]],
                }
                for row in self.pairs.to_pylist()
            ],
        }


def load(output: str, manifest: Mapping[str, Any]) -> ReadingTest | None:
    """A run's reading test with its answers, if drawn; a ValueError if a file is damaged."""
    path = storage.join(output, FOLDER, "pairs.arrow")
    if not storage.exists(path):
        return None
    pairs = tables.read(path)
    if pairs.schema.metadata != {_RUN: manifest["key"].encode()}:
        return None
    test = ReadingTest(manifest["key"], pairs, ANSWERS.empty_table())
    files = sorted(storage.listing(storage.join(output, FOLDER)))
    found = []
    for path in files:
        if _FILE.fullmatch(path.rsplit("/", 1)[-1]):
            value = _json(path)
            if isinstance(value, dict) and value.get("run") == test.run:
                found.append(read_answers(path, test))
    return replace(test, answers=pa.concat_tables([test.answers, *found]))


def check_number(n: int) -> None:
    """A ValueError if the number of pairs is out of range."""
    if not 1 <= n <= MOST_PAIRS:
        raise ValueError(f"--pairs is from 1 to {MOST_PAIRS}, not {n}")


def prepare(output: str, manifest: Mapping[str, Any], n: int) -> None:
    """Draw at most n pairs of a finished run and store them.

    Raises:
        ValueError: there are no pairs, or answers to others would be lost.
    """
    new = ReadingTest(manifest["key"], draw_pairs(output, manifest, n), ANSWERS.empty_table())
    old = load(output, manifest)
    if old and len(old.answers) and old.fingerprint != new.fingerprint:
        folder = storage.join(output, FOLDER)
        raise ValueError(
            f"{folder} has answers to {len(old.pairs)} pairs: remove that folder to draw others"
        )
    pairs = new.pairs.replace_schema_metadata({_RUN: new.run.encode()})
    tables.write(storage.join(output, FOLDER, "pairs.arrow"), pairs)


def take_up(output: str, manifest: Mapping[str, Any], path: str) -> None:
    """Check a file of answers and copy it to the run; the same file twice counts once.

    Raises:
        ValueError: it is of another run, or the page did not write it.
        OSError: it cannot be read.
    """
    test = load(output, manifest)
    if test is None:
        raise ValueError(f"{output} has no reading test: draw its pairs with --pairs first")
    read_answers(path, test)
    content = storage.read_bytes(path)
    name = f"answers-{xxhash.xxh3_64_hexdigest(content)}.json"
    storage.write_bytes(storage.join(output, FOLDER, name), content)


def read_answers(path: str, test: ReadingTest) -> pa.Table:
    """The answers (:data:`ANSWERS`) in a file; errors as in :func:`take_up`."""
    match _json(path):
        case {
            "format": str(form), "run": str(run), "pairs": str(fingerprint),
            "reader": str(reader), "answers": list(answers),
        } if form == FORMAT:  # fmt: skip
            pass
        case _:
            raise ValueError(f"{path} has no answers: give the file that the page saved")
    if run != test.run:
        raise ValueError(f"{path} belongs to the run {run}, and this one is {test.run}")
    if fingerprint != test.fingerprint:
        raise ValueError(f"{path} answers other pairs than those of this run")
    better: dict[int, str] = {}
    for answer in answers:
        match answer:
            case {"pair": int(i), "better": str(side)} if (
                not isinstance(i, bool) and 0 <= i < len(test.pairs) and side in CHOICES
            ):
                if i in better:
                    raise ValueError(f"{path} answers pair {i} twice")
                better[i] = side
            case _:
                raise ValueError(f"{path} has an invalid answer: {json.dumps(answer)[:100]}")
    return _compared(test.pairs, better, reader.strip()[:READER_CHARACTERS] or "unnamed")


def _compared(pairs: pa.Table, better: Mapping[int, str], reader: str) -> pa.Table:
    scores = [pairs[f"{side}_score"].to_pylist() for side in ("left", "right")]
    rows = []
    for i, side in sorted(better.items()):
        left, right = scores[0][i], scores[1][i]
        agrees = None if side == "neither" else (left > right) == (side == "left")
        rows.append({"reader": reader, "distance": abs(left - right), "agrees": agrees})
    return pa.Table.from_pylist(rows, ANSWERS)


def agreement_rows(_: Mapping[str, Any], statistics: Summary) -> list[Json]:
    """How often each reader and the score agree on decided pairs: in all, and by score distance."""
    if "reading" not in statistics:
        return []
    answers = statistics["reading"].to_pylist()
    rows = []
    for reader in sorted({row["reader"] for row in answers}):
        own = [row for row in answers if row["reader"] == reader]
        stratum = np.searchsorted(EDGES, [row["distance"] for row in own], "right") - 1
        rows.append(_agreement(reader, "all", [row["agrees"] for row in own]))
        for i, (low, high) in enumerate(itertools.pairwise([*EDGES, 1])):
            found = [row["agrees"] for row, at in zip(own, stratum, strict=True) if at == i]
            if found:
                rows.append(_agreement(reader, f"{low:g} to {high:g}", found))
    return rows


def _agreement(reader: str, distance: str, agrees: Sequence[bool | None]) -> Json:
    decided = [value for value in agrees if value is not None]
    row: Json = {"reader": reader, "score distance": distance, "pairs": len(agrees)}
    row |= {"could not tell": len(agrees) - len(decided), "agreed": sum(decided)}
    if not decided:
        return row | {"agreement": "–", "interval": "–"}
    rate = sum(decided) / len(decided)
    low, high = wilson(np.array([rate]), np.array([float(len(decided))]))
    interval = f"{100 * low[0]:.0f} to {100 * high[0]:.0f} %"
    return row | {"agreement": f"{100 * rate:.0f} %", "interval": interval}


def told(test: ReadingTest) -> list[str]:
    """Lines for a terminal: the number of pairs, and each reader's agreement."""
    rows = agreement_rows({}, {"reading": test.answers})
    return [
        f"pairs:  {len(test.pairs)} to read, in the blind reading test on the page",
        *(
            f"reader: {row['reader']} and the score agree in {row['agreed']} of"
            f" {row['pairs'] - row['could not tell']} pairs ({row['agreement']}, 95 % interval"
            f" {row['interval']}); could not tell in {row['could not tell']}"
            for row in rows
            if row["score distance"] == "all"
        ),
    ]


def _json(path: str) -> Any:
    """The value in a file; None if it is not JSON."""
    try:
        return json.loads(storage.read_bytes(path))
    except (ValueError, RecursionError):
        return None
