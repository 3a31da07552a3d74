"""How well a classifier does on held-out documents, and its card."""
