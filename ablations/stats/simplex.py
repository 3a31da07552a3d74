"""Mixtures: weights that sum to 1, each within its bound."""

import numpy as np

from ablations.study_files.results import FloatArray


def draw(natural: FloatArray, most: FloatArray, count: int, seed: int) -> FloatArray:
    """Random mixtures around a natural one: float64 [count, k]; a larger count extends a smaller.

    Dirichlet with the concentration of the uniform one and a mean halfway between natural and equal
    weights, so that rare components get weights that matter. Mixtures out of bounds are moved to
    the bound, towards the natural mixture.

    Args:
        natural: weights [k], within the bounds.
        most: the largest weight of each component [k].
        count: how many.
        seed: of the draw.
    """
    k = len(natural)
    random = np.random.default_rng(seed)
    drawn = random.dirichlet(k * (natural + 1 / k) / 2, count)
    return np.array([within(weights, natural, most) for weights in drawn]).reshape(count, k)


def even(natural: FloatArray, most: FloatArray) -> FloatArray:
    """Equal weights, as far as the bounds allow: all are [k]."""
    return within(np.full(len(natural), 1 / len(natural)), natural, most)


def within(weights: FloatArray, natural: FloatArray, most: FloatArray) -> FloatArray:
    """From the natural mixture towards another one, as far as the bounds allow: all are [k]."""
    direction = weights - natural
    room = (most - natural)[direction > 0] / direction[direction > 0]
    out: FloatArray = natural + min(1.0, *room) * direction
    return np.clip(out, 0.0, most)
