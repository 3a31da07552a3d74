"""Adafactor, AdamW and the learning-rate schedule."""
