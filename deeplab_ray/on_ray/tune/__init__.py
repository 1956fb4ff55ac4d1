"""Ray Tune around whole trainings."""
