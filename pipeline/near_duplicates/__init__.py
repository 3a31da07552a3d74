"""Near-duplicates: MinHash signatures, connected components, and who stays in each cluster."""
