"""Compares models by their logs of lm-evaluation-harness (``--log_samples``)."""
