"""Raw web text in; scored, sampled Arrow shards, statistics and a page out."""

import logging

# On import, Beam warns that it has no client for BigQuery.
logging.getLogger().addFilter(lambda record: not record.getMessage().startswith("apitools not"))
