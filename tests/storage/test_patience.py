"""Storage that fails for a while is waited for; what waiting does not change is told at once."""

import errno
from collections.abc import Callable

import pytest

from deeplab_ray.errors import JobError, UserError
from deeplab_ray.storage import patience
from deeplab_ray.storage.patience import with_patience

CURL = "When reading information for key 'a' in bucket 'b': AWS Error NETWORK_CONNECTION: curlCode: 52, nothing"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept; time passes by it alone."""
    waits: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", waits.append)
    monkeypatch.setattr(patience.time, "monotonic", lambda: 1000 + sum(waits))
    return waits


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [error] * times

    def action() -> str:
        if left:
            raise left.pop()
        return "done"

    return action


def test_what_works_is_not_waited_for(clock: list[float]) -> None:
    assert with_patience(failing(0, OSError()), "x") == "done"
    assert not clock


def test_a_server_that_comes_back_within_20_seconds_is_waited_for(clock: list[float]) -> None:
    assert with_patience(failing(6, OSError(CURL)), "x") == "done"
    assert 7 < sum(clock) < 30
    assert clock[-1] > 4 * clock[0]


def test_after_a_minute_a_line_says_what_to_do(clock: list[float]) -> None:
    with pytest.raises(
        JobError, match=r"^storage of s3://b/a does not answer \(OSError: .*curlCode: 52.*\): run the"
    ) as gone:
        with_patience(failing(1000, OSError(CURL)), "s3://b/a")
    assert sum(clock) == pytest.approx(60)
    assert "\n" not in str(gone.value)
    assert isinstance(gone.value.__cause__, OSError)


def test_slow_failures_get_three_attempts(clock: list[float]) -> None:
    calls = []

    def action() -> None:
        calls.append(1)
        clock.append(90)
        raise OSError(CURL)

    with pytest.raises(JobError):
        with_patience(action, "x")
    assert len(calls) == 3


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(),
        PermissionError(),
        IsADirectoryError(),
        OSError(errno.ENOSPC, "full"),
        OSError(errno.ELOOP, "links"),
        OSError("AWS Error ACCESS_DENIED during GetObject operation"),
        UserError("a damaged shard"),
        ValueError(),
        KeyboardInterrupt(),
    ],
)
def test_what_another_attempt_would_not_change_is_raised_at_once(clock: list[float], error: Exception) -> None:
    with pytest.raises(type(error)):
        with_patience(failing(1, error), "x")
    assert not clock
