"""Task metrics by name: their unit, and whether higher is better."""

GOLD_BITS = "gold_bits_per_byte"
"""Bits of the right answer per byte."""

GOLD_PROBABILITY = "gold_probability"
"""Probability of the right choice among all choices."""

BITS_PER_BYTE = "bits_per_byte"
"""Bits of a text per byte."""

LESS = "_less_is_better"
"""Suffix of other metrics where lower is better."""

GUESSED = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
"""lm-evaluation-harness's metrics of multiple choice, which have a chance level."""


def in_bits(metric: str) -> bool:
    """Whether it is in bits per byte; all others are in points."""
    return _bare(metric) in (GOLD_BITS, BITS_PER_BYTE)


def gain(metric: str) -> int:
    """The sign of a difference that is an improvement."""
    return -1 if in_bits(metric) or _bare(metric).endswith(LESS) else 1


def scale(metric: str) -> int:
    """The factor for display: 100 for points, 1 for bits."""
    return 1 if in_bits(metric) else 100


def _bare(metric: str) -> str:
    """The metric without its answer filter: ``exact_match`` of ``exact_match:strict-match``."""
    return metric.partition(":")[0]
