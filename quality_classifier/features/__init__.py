"""From text to hashed n-grams."""
