"""Fits settings of steps for each language to good text in it.

python pipeline/fit_steps.py --source de='good/de/*.jsonl.gz' --source th=good/th \
        --output languages.yaml
"""

import argparse
from collections.abc import Sequence

from winnow.arguments import Parser
from winnow.cli import EXIT_CODES, program
from winnow.commands import exits, startup

TAIL = 0.01


def parser() -> Parser:
    out = Parser(
        prog=program(),
        description="Fit gopher, gopher_repetition and fineweb to languages, from good text in"
        " each; use the settings with winnow run --languages FILE.",
        epilog=f"Exit codes: {EXIT_CODES}.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument(
        "--source",
        metavar="LANGUAGE=GLOB",
        action="append",
        required=True,
        help="good text in a language, named as by the step language or your own field; may be"
        " repeated, also for one language",
    )
    out.add_argument("--text", metavar="FIELD", default="text", help="the field of the text")
    out.add_argument(
        "--tail",
        type=float,
        default=TAIL,
        metavar="SHARE",
        help=f"how much of the good text one rule may drop (default: {TAIL})",
    )
    out.add_argument("--output", metavar="FILE", required=True, help="a new YAML file")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, write, and print what was found."""
    options = parser().parse_args(arguments)
    with exits.clear():
        with startup.importing():
            from pipeline.runs import fitting_run
        fitting_run.run(options.source, options.text, options.tail, options.output)


if __name__ == "__main__":
    main()
