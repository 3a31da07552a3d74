"""Filters by rules of thumb from papers, and their settings for a language."""
