"""One training step and what it needs, in plain PyTorch; `on_ray.train` runs it in Ray Train's workers."""
