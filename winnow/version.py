"""The version of the running code."""

import importlib.metadata
import os
import subprocess


def code_version() -> str:
    """The version of this package, with the git commit of a checkout."""
    version = importlib.metadata.version("winnow-lm")
    here = os.path.dirname(os.path.abspath(__file__))
    git = subprocess.run(
        ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{version}+{git.stdout.strip()}" if git.returncode == 0 else version
