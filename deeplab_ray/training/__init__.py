"""One training step and what it needs; the Ray Train side of it is in `trainer` (driver) and `worker`."""
