"""Measurements that a reader can repeat: what jobs/benchmark.py runs."""
