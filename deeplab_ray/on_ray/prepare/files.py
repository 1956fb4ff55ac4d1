"""Reading a pair's files, and telling what is wrong with a pair from what is wrong with storage."""

from deeplab_ray.datasets import Pair
from deeplab_ray.datasets.base import resolve
from deeplab_ray.storage.location import Location
from deeplab_ray.storage.patience import with_patience


def read_pair(source: Location, pair: Pair) -> tuple[bytes, bytes]:
    """The content of a pair's image file and of its label file (empty if it has none).

    Raises ValueError with the reason if a file is missing or, on a disk, cannot be read. S3 that fails is waited for:
    JobError if it goes on failing, OSError if it refuses.
    """
    label = b"" if pair.label is None else _read(resolve(source, pair.label))
    return _read(resolve(source, pair.image)), label


def _read(file: Location) -> bytes:
    try:
        return with_patience(file.read_bytes, file) if file.is_s3 else file.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{file} is missing") from None
    except OSError as error:
        if file.is_s3:
            raise
        raise ValueError(f"{file} cannot be read: {error}") from error
