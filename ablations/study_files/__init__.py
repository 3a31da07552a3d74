"""The schemas of a study's files, and the meaning of their names."""
