"""Near-duplicates: MinHash signatures, connected components, and who of a cluster stays."""
