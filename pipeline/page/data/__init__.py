"""The data of a run's page, panel by panel, as plain values."""
