"""Web archives: WARC records, HTTP responses, charsets, HTML."""
