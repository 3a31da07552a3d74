"""The output of a run: schemas, shards, statistics, manifest."""
