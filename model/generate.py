"""Continues a text with a trained model.

python model/generate.py checkpoint=run/ prompt="The harvest" temperature=0.8 top_k=40
"""

import sys

from winnow.commands import overrides


def literal(argument: str) -> str:
    """Quote a prompt for Hydra, to which ``Hello, world`` is a list and ``it's`` an error."""
    name, _, text = argument.partition("=")
    if name != "prompt":
        return argument
    return f"prompt={overrides.literal(text)}"


if __name__ == "__main__":
    sys.argv[1:] = map(literal, sys.argv[1:])
    overrides.run("model.generation", "generate")
