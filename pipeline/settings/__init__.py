"""The settings of a run, from flags and YAML; :mod:`pipeline.config` combines them."""
