"""Two arms compared on one endpoint: what can be compared, pairs of runs by seed, the verdict."""
