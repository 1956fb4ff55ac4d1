"""Everything that needs Ray: preparing data, training, searches and inference on a cluster."""
