"""Fits a calibration of combined scores to a finished run over labelled sources.

python pipeline/calibrate.py --scored scored/ --positive curated --negative sample \
        --combine max --output calibration.json
"""

import argparse
from collections.abc import Sequence

from winnow.arguments import Parser
from winnow.cli import EXIT_CODES, program
from winnow.commands import exits, startup


def parser() -> Parser:
    out = Parser(
        prog=program(),
        description="Calibrate the combined score of several classifiers, from a run over labelled"
        " text that none of them was trained on.",
        epilog=f"Exit codes: {EXIT_CODES}.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("--scored", metavar="DIR", required=True, help="the run's output folder")
    for name, what in (("positive", "good text"), ("negative", "raw text")):
        out.add_argument(
            f"--{name}",
            metavar="SOURCE",
            action="append",
            required=True,
            help=f"a source of the run that is {what}; may be repeated",
        )
    out.add_argument("--combine", metavar="RULE", help="as for winnow run (default: as the run)")
    out.add_argument(
        "--method",
        choices=("sigmoid", "isotonic"),
        default="sigmoid",
        help="two parameters, or any rising curve (default: sigmoid)",
    )
    out.add_argument("--output", metavar="FILE", required=True, help="a new JSON file")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit and write a calibration, and print its log loss."""
    options = parser().parse_args(arguments)
    with exits.clear():
        with startup.importing():
            from pipeline.runs import calibration_run
        calibration_run.run(**vars(options))


if __name__ == "__main__":
    main()
