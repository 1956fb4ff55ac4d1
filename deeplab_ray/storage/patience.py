"""Wait for storage that fails for a while, such as an S3 server that is restarted."""

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from deeplab_ray.errors import JobError, quote

T = TypeVar("T")

PATIENCE_S = 60.0
"""For so long storage may fail before a job gives up."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
_AT_LEAST = 3
# What waiting does not change, by its class or its number.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_LASTING_NUMBERS = (
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENOTEMPTY,
)
_DENIED = "ACCESS_DENIED"


def with_patience(action: Callable[[], T], what: object) -> T:
    """Return what `action` returns, and try again if it raises OSError, for about a minute with growing waits.

    It must be one that may be done twice. `what` names the place for the message. Raises at once what another attempt
    would not change: what there is not, what is not allowed, a full disk, and every exception but OSError. After a
    minute, and three attempts at least, JobError.
    """
    start, wait, attempts = time.monotonic(), _FIRST_WAIT_S, 0
    while True:
        try:
            return action()
        except OSError as error:
            if lasting(error):
                raise
            attempts += 1
            left = PATIENCE_S - (time.monotonic() - start)
            if left <= 0 and attempts >= _AT_LEAST:
                raise JobError(
                    f"storage of {what} does not answer ({quote(error)}): run the same command again; "
                    "it goes on from where it is"
                ) from error
        # Hundreds of workers wait for the same server, and should not all come back at once.
        time.sleep(min(wait * random.uniform(0.5, 1.0), max(left, 0.0)))
        wait = min(2 * wait, _LONGEST_WAIT_S)


def lasting(error: OSError) -> bool:
    """Whether storage does answer, and would answer the same again."""
    return isinstance(error, _LASTING) or error.errno in _LASTING_NUMBERS or _DENIED in str(error)
