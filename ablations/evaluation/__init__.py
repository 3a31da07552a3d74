"""Asks a trained model the questions of tasks, ours and those of lm-evaluation-harness."""
