"""Columns from elsewhere: files of scores, topics or verdicts, joined to documents by a key."""
