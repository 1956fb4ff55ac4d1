"""Options of a run: the recipe, the resources, how images are scored, what a search tries."""
