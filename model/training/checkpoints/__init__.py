"""Checkpoints on disk and in buckets, and runs that start from one."""
