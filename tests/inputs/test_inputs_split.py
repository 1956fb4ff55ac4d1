"""The images of a prepared split, one by one."""

import pickle
from pathlib import Path

import pytest
from places import keys, split

from deeplab_ray.errors import UserError
from deeplab_ray.inputs import SplitInputs, ids, open_inputs
from deeplab_ray.inputs import split as splits
from deeplab_ray.shards import open_split
from deeplab_ray.storage import patience
from deeplab_ray.storage.location import Location, locate


class TestSplit:
    @pytest.mark.parametrize("whole", [0, 2**24])
    def test_samples_by_their_numbers(self, folder: Location, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
        monkeypatch.setattr(splits, "_WHOLE_BYTES", whole)
        place = split(folder)
        for inputs in (open_inputs(place.uri), open_inputs(place.uri, "val"), open_inputs(folder.uri, "val")):
            assert inputs.uri == place.uri
            assert keys(inputs) == [str(i) for i in range(9)]
        again = pickle.loads(pickle.dumps(inputs))
        prepared = open_split(folder.uri, "val")
        assert [again.read(key) for key in keys(inputs)] == [prepared.read(i) for i in range(9)]
        assert again.read("2").label is None
        assert again.id_of("2") is None
        assert ids(again, again.keys()) is None

    def test_those_with_labels(self, tmp_path: Path) -> None:
        prepared = open_split(split(locate(tmp_path)).uri, "val")
        assert keys(SplitInputs(prepared, labelled_only=True)) == ["0", "1", "3", "4", "6", "7"]

    @pytest.mark.parametrize("key", ["9", "-1", "x", ""])
    def test_no_such_key(self, tmp_path: Path, key: str) -> None:
        with pytest.raises(ValueError, match="there is no image"):
            open_inputs(split(locate(tmp_path)).uri).read(key)

    @pytest.mark.parametrize("whole", [0, 2**24])
    def test_a_damaged_shard_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
        monkeypatch.setattr(splits, "_WHOLE_BYTES", whole)
        inputs = open_inputs(split(locate(tmp_path)).uri)
        shards = tmp_path / "val" / "shards-1"
        (shards / "00001.parquet").write_bytes(b"damaged")
        (shards / "00002.parquet").unlink()
        assert inputs.read("0").id == "0-0"
        with pytest.raises(UserError, match=r"00001\.parquet is damaged"):
            inputs.read("3")
        with pytest.raises(UserError, match=r"00002\.parquet is missing"):
            inputs.read("6")

    def test_storage_that_fails_for_a_while(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr(patience.time, "sleep", slept.append)
        inputs = SplitInputs(open_split(split(locate(tmp_path)).uri, "val"))
        splits._whole.cache_clear()
        error = OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 52, nothing")
        read, left = splits.read_shard, [error] * 3
        monkeypatch.setattr(splits, "read_shard", lambda *given: fail_once(left) or read(*given))
        assert inputs.read("4").id == "1-1"
        assert len(slept) == 3


def fail_once(errors: list[OSError]) -> None:
    if errors:
        raise errors.pop()
