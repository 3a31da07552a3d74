"""The page of a study: its body, styles and scripts, beside those of :mod:`pipeline.page`."""
