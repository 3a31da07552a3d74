"""``--help`` of Hydra commands, generated from ``conf/`` without importing Hydra.

A comment ``#: …`` there is the help text of a setting or of a group in the defaults list.
``hydra.help`` has a ``header`` (what the command does) and a ``footer`` (examples, one per line).
"""

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

import yaml

from winnow import cli
from winnow.defaults import CONF

_WIDTH = 100
_NAME = 34


def text(settings: str) -> str:
    """The help of the command whose settings are ``conf/SETTINGS.yaml``."""
    content = Path(CONF, f"{settings}.yaml").read_text(encoding="utf-8")
    about = yaml.safe_load(content)["hydra"]["help"]
    lines = [f"{cli.start()} SETTING=VALUE ...", "", *about["header"].splitlines()]
    root = yaml.compose(content)
    marked = [*_marked(root, content)]
    if not marked:  # its settings are those of the first file of its defaults
        settings = yaml.safe_load(content)["defaults"][0]
        content = Path(CONF, f"{settings}.yaml").read_text(encoding="utf-8")
        marked = [*_marked(yaml.compose(content), content)]
    folder = os.path.join(CONF, os.path.dirname(settings))
    groups = [(name, value, about) for name, value, about in marked if name.startswith("defaults.")]
    if groups:
        lines += ["", "groups:"]
        for name, value, meaning in groups:
            name = name.removeprefix("defaults.")
            lines += _entry(f"{name}={value}", f"{meaning}: {', '.join(_choices(folder, name))}")
    lines += ["", "settings:"]
    for name, value, meaning in marked:
        if not name.startswith("defaults."):
            lines += _entry(f"{name}={value}", meaning)
    lines += ["", "examples:"]
    lines += [f"  {cli.start()} {example}" for example in about["footer"].splitlines()]
    lines += [
        "",
        "??? is required. --help-all shows every setting; comments in"
        f" conf/{settings}.yaml explain each one.",
        f"Exit codes: {cli.EXIT_CODES}.",
    ]
    return "\n".join(lines)


def _marked(
    node: yaml.Node | None, content: str, prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Name, default and help text of each line with a ``#:`` comment."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _marked(item, content, prefix)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = prefix + key.value
            line = content.splitlines()[key.start_mark.line]
            _, mark, meaning = line.partition("#:")
            if mark:
                default = content[value.start_mark.index : value.end_mark.index].strip()
                yield name, default, meaning.strip()
            else:
                yield from _marked(value, content, f"{name}.")


def _choices(folder: str, group: str) -> list[str]:
    names = os.listdir(os.path.join(folder, *group.split("/")))
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _entry(name: str, meaning: str) -> list[str]:
    indent = " " * _NAME
    wrap = textwrap.TextWrapper(_WIDTH, indent, indent, break_on_hyphens=False)
    lines = wrap.wrap(meaning)
    head = f"  {name}"
    if len(head) < _NAME:
        lines[0] = head.ljust(_NAME) + lines[0][_NAME:]
        return lines
    return [head, *lines]
