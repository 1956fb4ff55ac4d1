"""Parts of a cluster on one machine: an S3 server, and the demo."""
