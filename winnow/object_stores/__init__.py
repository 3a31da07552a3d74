"""S3 and Google Cloud Storage as files, and locks in them."""
