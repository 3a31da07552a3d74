"""A rule that chose an arm's documents, in words: for the plan and for the page."""

from collections.abc import Mapping
from typing import Any


def in_words(definition: Mapping[str, Any]) -> str:
    """Such as ``Pareto, α = 9``, of what ``arms/NAME.json`` of a corpus says under that name."""
    rule, parameter = definition.get("rule"), definition.get("parameter")
    match rule:
        case "all":
            return "every document"
        case "pareto":
            return f"Pareto, α = {parameter:g}"
        case "threshold":
            return f"score at least {parameter:.3g}"
        case "random":
            return f"{parameter:.3g} at random"
        case "groups":
            return "a rule for each group"
        case _:
            return str(rule or "not said")
