"""Feature extractors made of image classifiers."""
