"""DeepLab v2 (Chen et al., PAMI 2017) trained, tuned and run on a Ray cluster.

The subpackages `models`, `crf`, `metrics`, `training` (but for `trainer` and `worker`), `datasets` and the module
`augment` import without Ray; `ingest`, `tuning`, `inference` and `prepare` need it.
"""

__version__ = "0.1.0"
