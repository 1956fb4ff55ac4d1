"""A dataset's folder → checked shards and their manifest, by Ray tasks.

1. `request`: find the pairs, and refuse what is wrong without opening a file. Needs no Ray.
2. `survey`: look at every pair once. The doctor (`datasets.doctor`) tells what is odd about them all.
3. `plan`: which rows make which shard: a function of the files' content, whatever the cluster.
4. `write`: a task a shard: normalised images, labels as PNGs of train ids. What a run that was killed has written whole
   is not written again.
5. `publish`: the manifests replace those of before in one step, and what nothing names is removed.

Driver and tasks hold what is being read and written, and some 200 bytes a pair.
"""

from deeplab_ray.on_ray.prepare.own import check_folder
from deeplab_ray.on_ray.prepare.request import Options, Request, check_request
from deeplab_ray.on_ray.prepare.run import carry_out, count_findings, prepare

__all__ = ["Options", "Request", "carry_out", "check_folder", "check_request", "count_findings", "prepare"]
