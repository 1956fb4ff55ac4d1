"""One training step and what it needs; the Ray Train side of it is in `training.trainer`."""
