"""Weights to start from: downloads, files of other projects, our own checkpoints."""
