"""How commands start, parse, report and end."""
