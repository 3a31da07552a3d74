"""Start, parsing, progress and exit of commands."""
