"""Searches with Ray Tune, in which each trial is a whole training."""
