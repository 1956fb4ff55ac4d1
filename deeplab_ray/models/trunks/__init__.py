"""Trunks: feature extractors made from image classifiers."""
