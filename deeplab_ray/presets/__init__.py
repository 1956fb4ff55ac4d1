"""Named recipes, with the data that they are for and what was published for them."""
