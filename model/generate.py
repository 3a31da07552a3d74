"""A trained model goes on with a text.

python model/generate.py checkpoint=run/ prompt="The harvest" temperature=0.8 top_k=40
"""

import sys

from winnow.commands import overrides


def literal(argument: str) -> str:
    """An argument of the command line, quoted so that Hydra leaves a prompt as it is.

    To Hydra ``Hello, world`` is a list and ``it's`` an error.
    """
    name, _, text = argument.partition("=")
    if name != "prompt":
        return argument
    return f"prompt={overrides.literal(text)}"


if __name__ == "__main__":
    sys.argv[1:] = map(literal, sys.argv[1:])
    overrides.run("model.generation", "generate")
