"""What is left to do by the journal, and how many images may fail. No Ray is started."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from deeplab_ray.errors import JobError, UserError
from deeplab_ray.inputs import FolderInputs
from deeplab_ray.on_ray.infer.work import Allowance, Todo, find_todo
from deeplab_ray.outputs import journal as journals
from deeplab_ray.outputs.journal import Done, Journal
from deeplab_ray.storage.location import locate

BROKEN = ("read", "unreadable")


@pytest.fixture
def inputs(tmp_path: Path) -> FolderInputs:
    for name in "abcde":
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / f"in/{name}.png").write_bytes(b"")
    return FolderInputs(locate(tmp_path / "in"))


def written(folder: Path, *runs: Iterable[Done]) -> Journal:
    """A journal that several runs wrote."""
    for rows in runs:
        journal = Journal(locate(folder))
        for done in rows:
            journal.add(done)
        journal.flush()
    return Journal(locate(folder))


def keys(todo: Todo) -> str:
    return "".join(key.removesuffix(".png") for key in todo.keys.to_pylist())


def good(*names: str) -> list[Done]:
    return [Done(f"{name}.png", name) for name in names]


def failed(*names: str) -> list[Done]:
    return [Done(f"{name}.png", name, *BROKEN) for name in names]


def test_what_is_left(inputs: FolderInputs, tmp_path: Path) -> None:
    assert keys(find_todo(inputs)) == "abcde"
    journal = written(tmp_path, good("a") + failed("b", "c"))
    todo = find_todo(inputs, journal)
    assert (keys(todo), todo.total, todo.failed) == ("de", 5, failed("b", "c"))
    assert [row["id"] for unit in todo.units(1) for row in unit] == ["d", "e"]
    again = find_todo(inputs, journal, retry_errors=True)
    assert (keys(again), again.failed) == ("bcde", [])


def test_an_image_that_was_put_right_is_no_failed_one(inputs: FolderInputs, tmp_path: Path) -> None:
    # In both orders: the names of a journal's files tell seconds.
    for number, runs in enumerate([(failed("b", "c"), good("b")), (good("b"), failed("b", "c"))]):
        journal = written(tmp_path / str(number), *runs)
        todo = find_todo(inputs, journal)
        assert (keys(todo), todo.failed) == ("ade", failed("c"))
        assert keys(find_todo(inputs, journal, retry_errors=True)) == "acde"


def test_images_that_are_gone_count_no_more(inputs: FolderInputs, tmp_path: Path) -> None:
    journal = written(tmp_path, failed("a", "x") + good("b", "y"))
    todo = find_todo(inputs, journal)
    assert (keys(todo), todo.total, todo.failed) == ("cde", 5, failed("a"))


def test_ids_that_only_reading_tells_are_known_of_earlier_images(inputs: FolderInputs, tmp_path: Path) -> None:
    journal = written(tmp_path, [Done("a.png", "first"), Done("b.png", "second", *BROKEN)])
    todo = find_todo(inputs, journal, ids_by_reading=True)
    assert (todo.ids, todo.taken) == (None, {hash("first"): "a.png"})
    assert find_todo(inputs, journal).taken == {}


def test_damaged_files_of_a_journal_say_nothing(inputs: FolderInputs, tmp_path: Path) -> None:
    journal = written(tmp_path, good("a"), good("b"), good("c"), good("d"))
    files = sorted(Path(journal.folder.path).iterdir())
    assert len(files) == 4
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    files[1].write_bytes(b"")
    flipped = bytearray(files[2].read_bytes())
    flipped[len(flipped) // 8] ^= 255
    files[2].write_bytes(flipped)
    assert len(find_todo(inputs, journal)) == 4
    assert len(list(journal.read())) == 1


def test_slow_images_are_written_down_while_the_next_one_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(journals.time, "monotonic", lambda: now[0])
    journal = Journal(locate(tmp_path))
    now[0] += 0.5
    journal.add(Done("a", "a", measured={"counts": np.arange(4)}))
    journal.keep_up()
    assert not list(Journal(locate(tmp_path)).read())
    now[0] += 0.6
    journal.keep_up()
    (done,) = Journal(locate(tmp_path)).read()
    assert (done.key, done.measured["counts"].tolist()) == ("a", [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("text", "images", "allowed"),
    [("0", 10, 0), ("5", 10, 5), ("1%", 250, 2), ("0.01", 250, 2), ("100%", 7, 7), ("0%", 9, 0), ("1.0", 7, 7)],
)
def test_so_many_may_fail(text: str, images: int, allowed: int) -> None:
    allowance, errors = Allowance.parse(text), failed(*map(str, range(allowed + 1)))
    allowance.check(errors[:allowed], images, "list")
    with pytest.raises(JobError, match=f"^{allowed + 1} of {images} images failed, above --max-errors .*: see list; "):
        allowance.check(errors, images, "list")


@pytest.mark.parametrize("text", ["", "%", "-1", "-0.5%", "101%", "1.5", "nan", "nan%", "five", "1%%"])
def test_what_is_no_allowance(text: str) -> None:
    with pytest.raises(UserError, match="is neither a number of images"):
        Allowance.parse(text)
