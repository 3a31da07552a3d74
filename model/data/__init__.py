"""From scored shards to batches of tokens."""
