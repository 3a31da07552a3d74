"""Compares models by what lm-evaluation-harness logged of them (``--log_samples``)."""
