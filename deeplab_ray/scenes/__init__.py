"""Street scenes drawn from a seed."""
