"""What needs Ray: preparing, feeding and running training, searches and inference on a cluster."""
