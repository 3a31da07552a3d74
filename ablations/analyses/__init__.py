"""Analyses of a study beside its verdict: sizes, claims, learning rates, mixtures."""
