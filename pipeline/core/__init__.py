"""One task, without Beam: read, score, apply steps, decide, write."""
