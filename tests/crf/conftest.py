"""Where PyTorch or Ray is not installed, what is about them is left out."""

from importlib.util import find_spec

NEEDS = {"test_torch.py": ("torch",), "test_actor.py": ("torch", "ray")}

collect_ignore = [file for file, packages in NEEDS.items() if not all(map(find_spec, packages))]
