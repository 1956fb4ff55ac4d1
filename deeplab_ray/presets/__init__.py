"""Named recipes: the paper's tables, and others."""
