"""A cluster's parts on one machine: an S3 server, and the demo."""
