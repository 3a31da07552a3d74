"""The trainer, its optimisers, checkpoints, parallelism and metrics."""
