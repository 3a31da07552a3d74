"""Evaluation of classifiers on held-out documents, and their cards."""
