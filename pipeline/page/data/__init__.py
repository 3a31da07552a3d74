"""What the page of a run shows, panel by panel, as plain values."""
