"""An arm's rule and controls in words, for the plan and the page."""

from collections.abc import Mapping
from typing import Any


def describe(about: Mapping[str, Any]) -> str:
    """An arm in words, from its ``arms/NAME.json``."""
    parts = [rule(about["definition"])]
    controls = about.get("controls", {})
    if controls.get("half") is not None:
        parts.append("a random half of them with each seed")
    if controls.get("unique_tokens") is not None:
        parts.append(f"{controls['unique_tokens']:,} tokens of them with each seed")
    if controls.get("pool_tokens") is not None:
        parts.append(f"within {controls['pool_tokens']:,} tokens of the pool with each seed")
    if controls.get("shuffled"):
        parts.append(f"the words of {controls['shuffled']:.3g} of them shuffled")
    return "; ".join(parts)


def rule(definition: Mapping[str, Any]) -> str:
    """The rule alone, without controls: ``Pareto, α = 9``."""
    name, parameter = definition.get("rule"), definition.get("parameter")
    match name:
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
            return str(name or "unknown")
