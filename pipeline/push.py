"""Pushes a finished run to the Hugging Face hub: shards, statistics, page and data card.

python pipeline/push.py scored/ hf://datasets/USER/NAME
"""

from collections.abc import Sequence

from winnow.arguments import Parser, check_utf8
from winnow.cli import program
from winnow.commands import console, exits


def parser() -> Parser:
    out = Parser(
        prog=program(),
        description="Push a finished run to the Hugging Face hub: shards, statistics, page and data"
        " card. Files that are already there are not sent again.",
        epilog="The token comes from `hf auth login` or HF_TOKEN. Every other flag goes to Beam,"
        " for folders in object stores.",
        allow_abbrev=False,
    )
    out.add_argument("output", metavar="DIR", help="the output folder of a finished run")
    out.add_argument("repository", metavar="hf://datasets/USER/NAME", help="made if needed")
    out.add_argument(
        "--public", action="store_true", help="make a new repository public (default: private)"
    )
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Push a run and say what was sent."""
    options, beam_flags = parser().parse_known_args(arguments)
    with exits.clear():
        with exits.usage():
            check_utf8([options.output, options.repository])
        with console.doing(f"reading {options.output}") as say:
            from pipeline.output import hub
            from winnow.object_stores import object_store

            with exits.usage():
                repo = hub.repository(options.repository)
                if beam_flags:
                    from pipeline.beam import engine  # local folders do without Beam

                    object_store.configure(engine.options(beam_flags))
            sent = hub.push(options.output, options.repository, private=not options.public, say=say)
        print(
            f"{options.repository}: {sent.files:,} files ({sent.size / 1e6:,.1f} MB) sent in"
            f" {sent.commits:,} commits, {sent.unchanged:,} were already there"
        )
        print(f'read it: datasets.load_dataset("{repo}")')


if __name__ == "__main__":
    main()
