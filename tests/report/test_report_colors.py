"""Colours of the pages, to the colour-blind."""

import re

import numpy as np
import pytest

from pipeline import page

# Machado, Oliveira and Fernandes 2009, table 1, severity 1; on linear RGB.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def linear(color):
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                    [0.0193339, 0.1191920, 0.9503041]]) @ np.clip(rgb, 0, 1)  # fmt: skip
    t = xyz / [0.95047, 1.0, 1.08883]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLIND)
def test_the_first_arms_and_the_ends_of_the_heat_map_differ_to_the_colour_blind(kind):
    blocks = re.findall(r":root \{(.*?)\}", page.read("style.css"), re.S)
    assert len(blocks) == 2  # light, dark
    for block in blocks:
        colors = dict(re.findall(r"--(c\d): (#\w{6})", block))
        seen = {name: lab(np.array(BLIND[kind]) @ linear(color)) for name, color in colors.items()}
        assert np.linalg.norm(seen["c0"] - seen["c1"]) > 30
