"""What a prediction reads: images with a key each."""

from typing import Protocol

import pyarrow as pa

from deeplab_ray.shards import Sample


class Inputs(Protocol):
    """Images with a key each. Picklable; of a folder's files it holds nothing. May be read by many threads."""

    @property
    def uri(self) -> str:
        """Where they come from, as the user would type it."""

    def keys(self) -> pa.Array:
        """The keys of all images (large_string), each once, always in the same order. Takes a listing of the folder."""

    def read(self, key: str) -> Sample:
        """Read an image. Height and width are 0 where they are not known before it is decoded.

        Storage that fails is waited for. Raises FileNotFoundError, or ValueError with a short reason, for what is wrong
        with this image alone; UserError naming the shard if that is damaged or missing; JobError if storage goes on
        failing, and OSError if it fails in a way that waiting does not change.
        """

    def id_of(self, key: str) -> str | None:
        """The image's id if the key alone tells it; None if the image has to be read, or all keys seen (`ids`)."""
