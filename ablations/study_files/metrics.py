"""What the name of a task's metric tells: its unit, and whether more of it is better."""

GOLD_BITS = "gold_bits_per_byte"
"""Bits of the right answer over its bytes."""

GOLD_PROBABILITY = "gold_probability"
"""Probability of the right choice among all choices."""

BITS_PER_BYTE = "bits_per_byte"
"""Bits of a whole text over its bytes."""

LESS = "_less_is_better"
"""Ends the name of any other metric of which less is better."""

GUESSED = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
"""lm-evaluation-harness's metrics of choices, of which guessing gets one in as many as there are
right."""


def in_bits(metric: str) -> bool:
    """Whether it is in bits per byte; all others are in points."""
    return _bare(metric) in (GOLD_BITS, BITS_PER_BYTE)


def gain(metric: str) -> int:
    """The sign of a difference that is an improvement."""
    return -1 if in_bits(metric) or _bare(metric).endswith(LESS) else 1


def scale(metric: str) -> int:
    """What a ratio is multiplied by for people: 100 points, or bits as they are."""
    return 1 if in_bits(metric) else 100


def _bare(metric: str) -> str:
    """Without the filter of the answers: ``exact_match`` of ``exact_match:strict-match``."""
    return metric.partition(":")[0]
