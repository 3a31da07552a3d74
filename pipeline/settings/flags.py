"""The command lines of ``pipeline/run.py`` and ``pipeline/decide.py``, and their defaults.

Nothing but argparse is imported, so that ``--help`` answers at once.
"""

import argparse
from collections.abc import Iterable

from pipeline.settings import input_flags
from winnow.arguments import Parser, flag, whole_numbers
from winnow.cli import EXIT_CODES, program

RULES = ("pareto", "threshold", "top_fraction", "random", "buckets", "all")
COMPRESSIONS = ("none", "lz4", "zstd")
FORMATS = ("arrow", "parquet")
WORDS = {"write": ("all", "kept"), "compression": COMPRESSIONS, "format": FORMATS}
"""Flags of the output that take one of some words."""

DEFAULT_ALPHA = 9.0
"""GPT-3's alpha. GLaM's is not published."""

DEFAULT_RULE = "pareto"
DEFAULT_TARGET_UNIT = "documents"
DEFAULT_RULES_BY = ("source", "language")
DEFAULT_NEAR_KEEP = "best"
DEFAULT_NEAR_POWER = 0.5
"""Of a cluster of n about the square root of n stay; ours."""
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
"""How to go on after an interruption."""

LIKENESS = 0.75
"""Similarity at which a flag of ours, or one of Beam's hundreds, is suggested."""


def names_of(arguments: Iterable[str]) -> list[str]:
    """The names of flags on a command line, without their values, which may be secrets."""
    return [text.partition("=")[0] for text in arguments if text.startswith("--")]


def names() -> list[str]:
    """Every flag of ``pipeline/run.py``."""
    return parser().flags()


def parser() -> Parser:
    """The flags of ``pipeline/run.py``, grouped. Each is also a key of the YAML."""
    out = _parser(
        "Raw web text in; scored, sampled Arrow shards, statistics and a page out.",
        "Every other flag goes to Beam, among them --runner, --direct_num_workers,"
        " --direct_running_mode, --project, --region, --temp_location and --staging_location;"
        " see the Beam documentation of your runner.",
    )
    out.add_argument("--config", metavar="YAML", help="a file with any of these flags; flags win")
    input_flags.add(out.add_argument_group("input"))
    group = out.add_argument_group("tokens")
    flag(
        group,
        "tokenizer",
        metavar="FILE",
        help="a Hugging Face tokenizer.json: shards get a column tokens, and targets are of those",
    )
    group = out.add_argument_group("classifier")
    group.add_argument(
        "--classifier",
        action="append",
        metavar="[NAME=]PATH",
        help="a trained folder, a fastText .bin, or MODULE.CLASS of your own; several by names, as"
        " quality=DIR and edu=DIR2",
    )
    group.add_argument(
        "--label",
        action="append",
        metavar="[NAME=]LABEL",
        help="for a fastText .bin: the good label, as __label__hq",
    )
    _combine_flags(group)
    group = out.add_argument_group("keep decision (filtered sources only)")
    _decision_flags(group)
    flag(group, "seed", type=int, metavar="N", help=f"keys the draws (default: {DEFAULT_SEED})")
    _step_flags(out, out.add_argument_group("steps before the decision (filtered sources only)"))
    _output_flags(out.add_argument_group("output"))
    _dry_run_flags(out.add_argument_group("Dataflow without Dataflow"))
    return out


def decide_parser() -> Parser:
    """The flags of ``pipeline/decide.py``."""
    about = "Decide again from the scores and draws that a run has stored."
    out = _parser(about, "Every other flag goes to Beam.")
    out.add_argument("--scored", metavar="DIR", help="the output folder of a run with --write all")
    _combine_flags(out.add_argument_group("scores"))
    _decision_flags(out.add_argument_group("keep decision (filtered sources only)"))
    _near_flags(out.add_argument_group("near-duplicates (default: as the run kept them)"))
    _output_flags(out.add_argument_group("output"))
    return out


def _parser(description: str, others: str) -> Parser:
    return Parser(
        prog=program(),
        description=description,
        epilog=f"{others} Flags may be spelled with - or _.\n\nExit codes: {EXIT_CODES}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )


def _combine_flags(group: argparse._ArgumentGroup) -> None:
    flag(
        group,
        "combine",
        metavar="RULE",
        help="several classifiers: the score is their max, mean, min or product, one of them, or an"
        f" expression as '0.7 * quality + 0.3 * edu' (default: {DEFAULT_COMBINE})",
    )
    flag(
        group,
        "calibration",
        metavar="FILE",
        help="several classifiers: what winnow calibrate wrote for this combination",
    )


def _decision_flags(group: argparse._ArgumentGroup) -> None:
    flag(group, "rule", metavar="RULE", help=f"{', '.join(RULES)} (default: {DEFAULT_RULE})")
    flag(
        group,
        "alpha",
        type=float,
        metavar="A",
        help=f"pareto: keep if draw < (2 - score)^-alpha (default: {DEFAULT_ALPHA:g}, GPT-3's)",
    )
    flag(group, "threshold", type=float, metavar="T", help="threshold: keep if score >= T")
    flag(group, "rate", type=float, metavar="R", help="random: keep this share, whatever the score")
    flag(
        group,
        "target_fraction",
        type=float,
        metavar="F",
        help="solve for alpha or the threshold"
        " so that this share of what reaches the decision is kept",
    )
    flag(
        group,
        "target_unit",
        metavar="UNIT",
        help="the share is of documents, bytes or tokens"
        " (white-space words stand for tokens unless a --tokenizer counts them; default:"
        f" {DEFAULT_TARGET_UNIT})",
    )
    flag(group, "buckets", type=int, metavar="K", help="buckets: how many quantiles of the score")
    flag(
        group,
        "copies",
        type=whole_numbers,
        metavar="N,N,…",
        help="buckets: how often to repeat the documents of each, the lowest scores first (0 drops,"
        " 1 keeps); each has as many documents, or as much of --target-unit",
    )
    flag(
        group,
        "rules",
        metavar="YAML",
        help="a rule for each group, as '{web: {en: {rule: pareto, alpha: 9}, \"*\": {rule: all}}}'"
        ", or a file of that form",
    )
    flag(
        group,
        "rules_by",
        action="append",
        metavar="COLUMN",
        help="a column that tells groups apart, for each level of --rules (default:"
        f" {' and '.join(DEFAULT_RULES_BY)})",
    )


def _step_flags(out: Parser, group: argparse._ArgumentGroup) -> None:
    flag(
        group,
        "steps",
        action="append",
        metavar="NAME",
        help="a step of conf/pipeline/steps.yaml to apply, or MODULE.CLASS of your own; in the"
        " order given",
    )
    flag(
        group,
        "languages",
        metavar="YAML",
        help="settings of steps by language, as '{de: {gopher: {min_stop_words: 1}}}', or a file of"
        " that form, or 'default' for conf/pipeline/languages.yaml",
    )
    group.add_argument(
        "--deduplicate",
        action=argparse.BooleanOptionalAction,
        help="drop exact duplicates of a text within the run (default: no)",
    )
    group = out.add_argument_group("near-duplicates (filtered sources only)")
    group.add_argument(
        "--near-duplicates",
        "--near_duplicates",
        dest="near_duplicates",
        action=argparse.BooleanOptionalAction,
        help="find them by MinHash-LSH, name their clusters, drop all but one (default: no)",
    )
    _near_flags(group)
    for name, default, what in (
        ("bands", DEFAULT_NEAR_BANDS, "bands of hashes, of which one must agree"),
        ("rows", DEFAULT_NEAR_ROWS, "hashes in a band, all of which must agree"),
        ("words", DEFAULT_NEAR_WORDS, "words of the n-grams that are compared"),
    ):
        flag(
            group,
            f"near_duplicates_{name}",
            type=int,
            metavar="N",
            help=f"{what} (default: {default}, FineWeb's)",
        )


def _near_flags(group: argparse._ArgumentGroup) -> None:
    """Which near-duplicates stay; the flags of both commands."""
    flag(
        group,
        "near_duplicates_keep",
        metavar="RULE",
        help="which one of a cluster of near-duplicates stays: best (by score), first, longest,"
        f" sample (the best, and others at random) or all (default: {DEFAULT_NEAR_KEEP})",
    )
    flag(
        group,
        "near_duplicates_power",
        type=float,
        metavar="P",
        help="sample: each other one of n stays with probability n^-P"
        f" (default: {DEFAULT_NEAR_POWER:g})",
    )


def _output_flags(group: argparse._ArgumentGroup) -> None:
    flag(group, "output", metavar="DIR", help="a new folder, local or in s3:// or gs://")
    flag(
        group,
        "write",
        metavar="WHAT",
        help="all: dropped documents stay in the shards, flagged;"
        f" kept: only kept ones are written (default: {DEFAULT_WRITE})",
    )
    flag(
        group,
        "shard_bytes",
        type=int,
        metavar="N",
        help=f"start another shard beyond this size (default: {DEFAULT_SHARD_BYTES})",
    )
    flag(
        group,
        "format",
        metavar="NAME",
        help=f"of the shards: {', '.join(FORMATS)} (default: {DEFAULT_FORMAT})",
    )
    flag(
        group,
        "compression",
        metavar="NAME",
        help=f"of the shards: {', '.join(COMPRESSIONS)}"
        f" (default: {', '.join(f'{of} for {name}' for name, of in DEFAULT_COMPRESSION.items())})",
    )
    flag(
        group,
        "stall_minutes",
        type=float,
        metavar="N",
        help="end a run on this machine when nothing has moved for so long: no batch, no block of a"
        f" file (default: {DEFAULT_STALL_MINUTES:g})",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="finish an interrupted run: skip what is complete, do the rest",
    )


def _dry_run_flags(group: argparse._ArgumentGroup) -> None:
    flag(
        group,
        "dry_run",
        action="store_true",
        help="with --runner DataflowRunner: build the job, check it, say what would be staged and"
        " started and about how much it uses; nothing is sent, no credentials are needed",
    )
    flag(
        group,
        "assume",
        action="append",
        metavar="NAME=VALUE",
        help="for --dry-run: another value of conf/pipeline/dataflow.yaml, as input_bytes=5e12"
        " (inputs are not looked at then) or price_vcpu_hour=0.05",
    )
