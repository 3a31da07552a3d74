r"""Raw web text in; scored, sampled Arrow shards, statistics and a page out.

python pipeline/run.py --source web='crawl/*.warc.gz' --source wiki='wiki/*.jsonl.gz' \
        --filter web --classifier classifier/ --rule pareto --alpha 9 --output scored/
"""

import sys
from collections.abc import Sequence

from pipeline.beam import cloud_clients
from pipeline.settings import flags
from winnow.commands import exits, startup


def main(arguments: Sequence[str]) -> None:
    """Score and filter as the flags say; ``--help`` and wrong values end without Beam."""
    given, _ = flags.parser().parse_known_args(arguments)
    with startup.importing(), cloud_clients.left_out_if_local(arguments):
        from pipeline.runs import dry_run, scoring_run

    if "dry_run" in given or "assume" in given:
        dry_run.main(arguments, given)
    else:
        scoring_run.main(arguments)


if __name__ == "__main__":
    flags.parser().parse_known_args()
    with (
        exits.interruptible(flags.AGAIN),
        startup.importing(),
        cloud_clients.left_out_if_local(sys.argv[1:]),
    ):
        from pipeline.beam import engine

    engine.exit_clearly(main)
