"""Ray Train around the training step: the driver, the loop of every worker, what rank 0 tells."""
