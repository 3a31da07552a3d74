"""The files of a study: their schema, and what names and tables in them mean."""
