"""Evaluates a trained model on tasks of ours and of lm-evaluation-harness."""
