"""What a run leaves: schemas, shards, statistics, manifest."""
