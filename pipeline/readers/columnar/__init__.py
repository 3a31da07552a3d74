"""Columnar files: Parquet and Arrow."""
