"""What a run can be told: the recipe, the resources, how images are scored, what a search tries."""
