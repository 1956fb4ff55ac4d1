"""What turns a trunk's features into scores."""
