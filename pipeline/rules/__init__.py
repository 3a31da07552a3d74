"""The keep rules: decide, and solve for a target."""
