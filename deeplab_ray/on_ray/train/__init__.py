"""Training with Ray Train: the driver, the loop of every worker, what rank 0 reports."""
