"""Decide again which documents to keep, from stored scores and draws, without a model.

python pipeline/decide.py --scored scored/ --rule pareto --alpha 3 --output scored_alpha3/
"""

import sys
from collections.abc import Sequence

from pipeline.beam import cloud_clients
from pipeline.settings import flags
from winnow.commands import exits, startup


def main(arguments: Sequence[str]) -> None:
    """Decide as the flags say; ``--help`` and wrong values end without Beam."""
    flags.decide_parser().parse_known_args(arguments)
    with startup.importing(), cloud_clients.left_out_if_local(arguments):
        from pipeline.runs import decision_run

    decision_run.main(arguments)


if __name__ == "__main__":
    flags.decide_parser().parse_known_args()
    with (
        exits.interruptible(flags.AGAIN),
        startup.importing(),
        cloud_clients.left_out_if_local(sys.argv[1:]),
    ):
        from pipeline.beam import engine

    engine.exit_clearly(main)
