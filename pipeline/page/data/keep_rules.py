"""Keep rules in words, from the manifest (:func:`pipeline.rules.groups.to_json`)."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.rules.decision import PARAMETERS
from pipeline.rules.groups import rules_of

Json = Mapping[str, Any]


def ties(rule: Json) -> float:
    """The share of ties that a rule keeps; all in runs of older versions."""
    return float(rule.get("ties", 1))


def short(rule: Json) -> str:
    """A rule with its parameters, in a few words."""
    match rule["name"]:
        case "buckets":
            copies = rule["copies"]
            return f"{len(copies)} buckets of {', '.join(map(str, copies))} copies"
        case "groups":
            groups = rules_of(rule)
            if not rule["by"]:
                return short(groups[0]["rule"])
            return f"{len(groups)} rules, by {' and '.join(rule['by'])}"
    name = PARAMETERS.get(rule["name"])
    return rule["name"] if name is None else f"{rule['name']}, {name} = {rule['parameter']:.6g}"


def in_words(rule: Json) -> str:
    """The documents that a rule keeps, as the end of a sentence."""
    if rule["name"] == "groups":
        groups, by = rules_of(rule), " and ".join(rule["by"])
        if not by:
            return in_words(groups[0]["rule"])
        return f"each of {len(groups)} groups, by {by}, has a rule of its own"
    if rule["name"] == "buckets":
        cuts = ", ".join(f"{cut['parameter']:.4g}" for cut in rule["cuts"])
        return f"documents are cut by their score, at {cuts or 'no score'}, into {short(rule)}"
    parameter = f"{rule['parameter']:.12g}"
    return {
        "pareto": (
            f"a document of score s stays with probability 1/(2\u00a0−\u00a0s)^{parameter}"
            f" (Pareto rule, α\u00a0=\u00a0{parameter})"
        ),
        "threshold": (
            f"a document stays if its score is at least {parameter}"
            if ties(rule) == 1
            else f"a document stays if its score is over {parameter}, or is that and its draw below"
            f" {ties(rule):.12g}"
        ),
        "random": f"a document stays with probability {parameter}, whatever its score",
        "all": "every document that reaches the keep decision stays",
    }[rule["name"]]


def solved_for(decision: Json) -> str:
    """The target of a solved parameter, in brackets after a space; empty if given."""
    if decision.get("target_fraction") is None or decision.get("rule") == "random":
        return ""
    unit = decision.get("target_unit", "documents")
    return f" (solved for {decision['target_fraction']:g} of the {unit})"


def has_copies(rule: Json) -> bool:
    return any(group["rule"]["name"] == "buckets" for group in rules_of(rule))


def stated(decision: Json, path: Iterable[str]) -> Json:
    """The user's settings for one group."""
    node: Any = decision.get("rules") or decision
    for value in path:
        node = node[value]
    return dict(node)
