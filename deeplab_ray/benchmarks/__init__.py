"""Measurements that a reader can repeat with jobs/benchmark.py."""
