"""Files on disk and on S3."""
