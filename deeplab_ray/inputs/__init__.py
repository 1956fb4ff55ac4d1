"""What a batch prediction reads: a prepared split, or a folder of images as people have them.

The driver lists the keys of all images once, and sends each worker those of its part, with the inputs themselves,
which are small. A key is enough to read an image anywhere.
"""

from deeplab_ray.inputs.folder import PATTERNS, FolderInputs
from deeplab_ray.inputs.naming import with_ids
from deeplab_ray.inputs.opening import ids, open_inputs
from deeplab_ray.inputs.protocol import Inputs
from deeplab_ray.inputs.split import SplitInputs, split_at

__all__ = ["PATTERNS", "FolderInputs", "Inputs", "SplitInputs", "ids", "open_inputs", "split_at", "with_ids"]
