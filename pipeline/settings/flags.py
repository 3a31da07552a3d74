"""The command lines of ``pipeline/run.py`` and ``pipeline/decide.py``, and their defaults.

It imports nothing but argparse, so that ``--help`` is instant.
"""

import argparse
from argparse import BooleanOptionalAction
from collections.abc import Iterable, Mapping
from typing import Any

from winnow import defaults
from winnow.arguments import Parser, flag, whole_numbers
from winnow.cli import EXIT_CODES, program

RULES = ("pareto", "threshold", "top_fraction", "random", "buckets", "all")
COMPRESSIONS = ("none", "lz4", "zstd")
FORMATS = ("arrow", "parquet")
WORDS = {"write": ("all", "kept"), "compression": COMPRESSIONS, "format": FORMATS}
"""Allowed values of output flags."""

DEFAULT_ALPHA = 9.0
"""GPT-3's alpha. GLaM's is not published."""

DEFAULT_RULE = "pareto"
DEFAULT_TARGET_UNIT = "documents"
DEFAULT_RULES_BY = ("source", "language")
DEFAULT_NEAR_KEEP = "best"
DEFAULT_NEAR_POWER = 0.5
"""About the square root of a cluster stays; our choice."""
DEFAULT_NEAR_BANDS, DEFAULT_NEAR_ROWS, DEFAULT_NEAR_WORDS = 14, 8, 5
"""FineWeb: Penedo et al. 2024, section 3.4."""
DEFAULT_COMBINE = "mean"
DEFAULT_SEED = 0
DEFAULT_WRITE = "all"
DEFAULT_SHARD_BYTES = 512 << 20
DEFAULT_FORMAT = "arrow"
DEFAULT_COMPRESSION = {"arrow": "lz4", "parquet": "zstd"}
DEFAULT_STALL_MINUTES = 10.0

MOST_COPIES = 100
"""How often a document may be repeated in the training order."""

AGAIN = "add --resume to finish the run"
"""Advice after an interruption."""

LIKENESS = 0.75
"""Similarity at which a flag, of ours or Beam's hundreds, is suggested."""


Flags = Mapping[str, tuple[str | None, Any, str]]
"""The metavar, the type or action, and the help of each flag."""

# fmt: off
CONFIG: Flags = {"config": ("YAML", str, "a file with any of these flags; flags win")}

INPUT: Flags = {
    "source": ("NAME=GLOB", "append",
        "an input; may be repeated, also for one name. WET, WARC, ARC, JSON, Parquet, Arrow by"
        " content; CSV, TSV, text, HTML by name; packed by gzip, zstd, bzip2, xz or lz4, or not; a"
        " folder means its files"),
    "filter": ("NAME", "append",
        "a source whose documents the steps and the keep rule may drop; the others pass through"),
    "field": ("[SOURCE.]COLUMN=FIELD", "append",
        "the input field with text, id, url or language, as text=content, web.id=uid or"
        " url=metadata.url"),
    "metadata": ("FIELD", "append", "an extra input field to keep as a string column"),
    "join": ("NAME=FILES[:key=id|url|host]", "append",
        "columns of other files (Parquet, Arrow, JSON lines, CSV) for the documents with the same"
        " id, url or host; may be repeated. Further settings: :field=KEY_FIELD,"
        " :columns=NAME,NAME,…, :duplicates=first (or last), :missing=SCORE"),
    "list_separator": ("SEP", lambda text: text.replace("\\n", "\n").replace("\\t", "\t"),
        r"joins the strings of a text that is a list, as \n"),
    "html_extractor": ("NAME", str,
        f"extracts text from WARC pages (default: {defaults.HTML_EXTRACTOR})"),
    "plain_text": (None, BooleanOptionalAction,
        "also read the plain text in WARC files (default: yes)"),
    "text_document": ("WHAT", str,
        f"what is a document in a .txt file: file or line (default: {defaults.TEXT_DOCUMENT})"),
    "reader": ("MODULE.NAME", "append", "a format of your own package"),
    "max_document_bytes": ("N", int,
        f"longer records are quarantined (default: {defaults.MAX_DOCUMENT_BYTES})"),
    "split_bytes": ("N", int,
        "splittable files are cut into ranges of about this size"
        f" (default: {defaults.SPLIT_BYTES})"),
}

TOKENS: Flags = {
    "tokenizer": ("FILE", str,
        "a Hugging Face tokenizer.json: counts tokens in the shards, and for targets in tokens"),
}

CLASSIFIER: Flags = {
    "classifier": ("[NAME=]PATH", "append",
        "a trained folder, a fastText .bin, or MODULE.CLASS of your own; several by names, as"
        " quality=DIR and edu=DIR2"),
    "label": ("[NAME=]LABEL", "append", "for a fastText .bin: the good label, as __label__hq"),
}

COMBINE: Flags = {
    "combine": ("RULE", str,
        "several classifiers: the score is their max, mean, min or product, one of them, or an"
        f" expression as '0.7 * quality + 0.3 * edu' (default: {DEFAULT_COMBINE})"),
    "calibration": ("FILE", str,
        "several classifiers: what winnow calibrate wrote for this combination"),
}

DECISION: Flags = {
    "rule": ("RULE", str, f"{', '.join(RULES)} (default: {DEFAULT_RULE})"),
    "alpha": ("A", float,
        f"pareto: keep if draw < (2 - score)^-alpha (default: {DEFAULT_ALPHA:g}, GPT-3's)"),
    "threshold": ("T", float, "threshold: keep if score >= T"),
    "rate": ("R", float, "random: keep this share, whatever the score"),
    "target_fraction": ("F", float,
        "solve for alpha or the threshold that keeps this share of what reaches the decision"),
    "target_unit": ("UNIT", str,
        "the share is of documents, bytes or tokens (white-space words, unless a --tokenizer"
        f" counts tokens; default: {DEFAULT_TARGET_UNIT})"),
    "buckets": ("K", int, "buckets: the number of quantiles of the score"),
    "copies": ("N,N,…", whole_numbers,
        "buckets: how often to repeat the documents of each, the lowest scores first (0 drops, 1"
        " keeps); all have the same size in --target-unit"),
    "rules": ("YAML", str,
        "a rule for each group, as '{web: {en: {rule: pareto, alpha: 9}, \"*\": {rule: all}}}', or"
        " a file of that form"),
    "rules_by": ("COLUMN", "append",
        "a grouping column, for each level of --rules (default:"
        f" {' and '.join(DEFAULT_RULES_BY)})"),
}

SEED: Flags = {"seed": ("N", int, f"keys the draws (default: {DEFAULT_SEED})")}

STEPS: Flags = {
    "steps": ("NAME", "append",
        "a step of conf/pipeline/steps.yaml to apply, or MODULE.CLASS of your own; in the order"
        " given"),
    "languages": ("YAML", str,
        "settings of steps by language, as '{de: {gopher: {min_stop_words: 1}}}', or a file of that"
        " form, or 'default' for conf/pipeline/languages.yaml"),
    "deduplicate": (None, BooleanOptionalAction,
        "drop exact duplicates of a text within the run (default: no)"),
}

NEAR_DUPLICATES: Flags = {
    "near_duplicates": (None, BooleanOptionalAction,
        "find them with MinHash-LSH, name their clusters, drop all but one (default: no)"),
}

NEAR_KEEP: Flags = {
    "near_duplicates_keep": ("RULE", str,
        "which one of a cluster of near-duplicates stays: best (by score), first, longest, sample"
        f" (the best, and others at random) or all (default: {DEFAULT_NEAR_KEEP})"),
    "near_duplicates_power": ("P", float,
        "sample: each other one of n stays with probability n^-P"
        f" (default: {DEFAULT_NEAR_POWER:g})"),
}

NEAR_SEARCH: Flags = {
    "near_duplicates_bands": ("N", int,
        "bands of hashes, of which one must agree"
        f" (default: {DEFAULT_NEAR_BANDS}, FineWeb's)"),
    "near_duplicates_rows": ("N", int,
        f"hashes in a band, all of which must agree (default: {DEFAULT_NEAR_ROWS}, FineWeb's)"),
    "near_duplicates_words": ("N", int,
        f"words of the n-grams that are compared (default: {DEFAULT_NEAR_WORDS}, FineWeb's)"),
}

OUTPUT: Flags = {
    "output": ("DIR", str, "a new folder, local or in s3:// or gs://"),
    "write": ("WHAT", str,
        "all: dropped documents stay in the shards, flagged; kept: only kept ones are written"
        f" (default: {DEFAULT_WRITE})"),
    "shard_bytes": ("N", int,
        f"start another shard beyond this size (default: {DEFAULT_SHARD_BYTES})"),
    "format": ("NAME", str, f"of the shards: {', '.join(FORMATS)} (default: {DEFAULT_FORMAT})"),
    "compression": ("NAME", str,
        f"of the shards: {', '.join(COMPRESSIONS)}"
        f" (default: {', '.join(f'{of} for {name}' for name, of in DEFAULT_COMPRESSION.items())})"),
    "stall_minutes": ("N", float,
        "end a local run after this long without progress: no batch, no block of a file"
        f" (default: {DEFAULT_STALL_MINUTES:g})"),
    "resume": (None, "store_true", "finish an interrupted run, skipping what is complete"),
}

DRY_RUN: Flags = {
    "dry_run": (None, "store_true",
        "with --runner DataflowRunner: build and check the job; print what it would stage, start"
        " and roughly use. Nothing is sent, and no credentials are needed"),
    "assume": ("NAME=VALUE", "append",
        "for --dry-run: overrides conf/pipeline/dataflow.yaml, as price_vcpu_hour=0.05 or"
        " input_bytes=5e12 (inputs are then not read)"),
}
# fmt: on

RUN: Mapping[str, Flags] = {
    "input": INPUT,
    "tokens": TOKENS,
    "classifier": {**CLASSIFIER, **COMBINE},
    "keep decision (filtered sources only)": {**DECISION, **SEED},
    "steps before the decision (filtered sources only)": STEPS,
    "near-duplicates (filtered sources only)": {**NEAR_DUPLICATES, **NEAR_KEEP, **NEAR_SEARCH},
    "output": OUTPUT,
    "Dataflow without Dataflow": DRY_RUN,
}
DECIDE: Mapping[str, Flags] = {
    "scores": COMBINE,
    "keep decision (filtered sources only)": DECISION,
    "near-duplicates (default: as the run kept them)": NEAR_KEEP,
    "output": OUTPUT,
}


def names_of(arguments: Iterable[str]) -> list[str]:
    """The names of flags on a command line, without values, which may be secrets."""
    return [text.partition("=")[0] for text in arguments if text.startswith("--")]


def names() -> list[str]:
    """Every flag of ``pipeline/run.py``."""
    return parser().flags()


def parser() -> Parser:
    """The flags of ``pipeline/run.py``, grouped. Each is also a key of the YAML."""
    return _parser(
        "Raw web text in; scored, sampled Arrow shards, statistics and a page out.",
        "Every other flag goes to Beam, among them --runner, --direct_num_workers,"
        " --direct_running_mode, --project, --region, --temp_location and --staging_location;"
        " see the Beam documentation of your runner.",
        CONFIG,
        RUN,
    )


def decide_parser() -> Parser:
    """The flags of ``pipeline/decide.py``."""
    about = "Decide again from the scores and draws that a run has stored."
    scored: Flags = {"scored": ("DIR", str, "the output folder of a run with --write all")}
    return _parser(about, "Every other flag goes to Beam.", scored, DECIDE)


def _parser(about: str, others: str, first: Flags, groups: Mapping[str, Flags]) -> Parser:
    out = Parser(
        prog=program(),
        description=about,
        epilog=f"{others} Flags may be spelled with - or _.\n\nExit codes: {EXIT_CODES}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    _add(out, first)
    for title, flags in groups.items():
        _add(out.add_argument_group(title), flags)
    return out


def _add(group: argparse._ActionsContainer, flags: Flags) -> None:
    for name, (metavar, kind, text) in flags.items():
        is_action = isinstance(kind, str) or kind is BooleanOptionalAction
        how = {"action" if is_action else "type": kind}
        flag(group, name, help=text, **how, **({"metavar": metavar} if metavar else {}))
