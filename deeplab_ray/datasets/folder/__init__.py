"""Anybody's own images and labels, in two folders.

1. `options`: what the user says of them; each field is a flag of jobs/prepare.py.
2. `matching`, `splits`: which label is which image's, and which split they belong to.
3. `kinds`: what the labels are, by the first of them; `colours` and `shapes` read those that are no index PNGs.
4. `classes`: what is to be learnt, from a file; or `finding`: found by looking.
"""

from deeplab_ray.datasets.folder.classes import ClassList, read_classes
from deeplab_ray.datasets.folder.finding import Found, find_classes
from deeplab_ray.datasets.folder.folder import Folder, open_folder
from deeplab_ray.datasets.folder.options import FolderOptions

__all__ = ["ClassList", "Folder", "FolderOptions", "Found", "find_classes", "open_folder", "read_classes"]
