"""Small models and their tokens."""

import dataclasses

import torch

from model.glam.config import GLaMConfig

DENSE = GLaMConfig(vocabulary=50, layers=4, width=32, hidden=64, heads=4, head_width=8)
SPARSE = dataclasses.replace(DENSE, experts=8)


def tokens(rows=2, positions=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, DENSE.vocabulary, (rows, positions), generator=generator)
