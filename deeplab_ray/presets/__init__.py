"""Presets: named recipes, with the dataset that each is for and the published figures."""
