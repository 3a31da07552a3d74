"""Words, lines and characters, as the steps count and search them."""
