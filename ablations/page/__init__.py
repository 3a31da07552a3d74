"""The page of a study, built on :mod:`pipeline.page`."""
