"""The format "scores": what comes back, and what is refused."""

import io
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from deeplab_ray.datasets.voc12 import DATASET
from deeplab_ray.outputs.formats import Prediction, StoredScores, make, read_scores

FORMAT = make("scores", DATASET.table)


def png(*shape: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros(shape, np.uint8)).save(file, "PNG")
    return file.getvalue()


IMAGE, LABELS = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8)
SCORES = np.random.default_rng(0).normal(size=(21, 4, 5)).astype(np.float16)
PREDICTION = Prediction("val/ü", IMAGE, LABELS, png(20, 30, 3), png(20, 30), SCORES, "corners 8")


@pytest.mark.parametrize("truth", [PREDICTION.truth, None])
def test_what_goes_in_comes_out(truth: bytes | None) -> None:
    stored = read_scores(FORMAT.encode(replace(PREDICTION, truth=truth)))
    expected = StoredScores("val/ü", PREDICTION.encoded, truth, 20, 30, SCORES, "corners 8")
    for field in fields(stored):
        assert np.array_equal(getattr(stored, field.name), getattr(expected, field.name)), field.name
    assert stored.scores.dtype == np.float16


@pytest.mark.parametrize("truth", [png(20, 31), b"no image"])
def test_a_label_that_does_not_fit_its_image_is_left_out(truth: bytes) -> None:
    assert read_scores(FORMAT.encode(replace(PREDICTION, truth=truth))).label is None


def test_the_file_is_plain_parquet() -> None:
    # Neither contiguous nor of this machine's byte order.
    scores = SCORES.astype(">f2").transpose(0, 2, 1)
    content = FORMAT.encode(replace(PREDICTION, scores=scores))
    (row,) = pq.read_table(io.BytesIO(content)).to_pylist()
    assert list(row) == ["id", "image", "label", "height", "width", "scores", "scores_shape", "grid"]
    assert row["scores_shape"] == [21, 5, 4]
    assert np.array_equal(np.frombuffer(row["scores"], "<f2").reshape(21, 5, 4), scores)
    chunks = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0)
    codecs = {chunks.column(i).path_in_schema: chunks.column(i).compression for i in range(chunks.num_columns)}
    assert {name for name, codec in codecs.items() if codec != "UNCOMPRESSED"} == {"scores"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scores": np.full((2, 3, 4), np.nan, np.float16)}, "scores are not finite"),
        ({"scores": np.zeros((3, 4), np.float16)}, "not classes × rows × columns"),
        ({"scores": np.zeros((0, 3, 4), np.float16)}, "not classes × rows × columns"),
        ({"encoded": png(21, 30, 3)}, "the image is of 21×30, but should be of 20×30"),
        ({"id": "caf\udce9"}, r"'caf\\udce9' is no Unicode text"),
    ],
)
def test_what_could_not_be_read_is_not_written(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FORMAT.encode(replace(PREDICTION, **change))


def test_damage_is_noticed() -> None:
    content = FORMAT.encode(PREDICTION)
    for length in (0, 1, 4, 11, len(content) // 2, len(content) - 1):
        with pytest.raises(ValueError, match="damaged") as error:
            read_scores(content[:length])
        assert len(str(error.value)) < 300
    flips = np.random.default_rng(0).integers(0, 8 * len(content), 400)
    noticed = 0
    for bit in map(int, flips):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            stored = read_scores(bytes(damaged))
        except ValueError:
            noticed += 1
        else:
            # In what Arrow notes beside the data, and never looks at.
            assert np.array_equal(stored.scores, SCORES)
            assert stored.image == PREDICTION.encoded
    assert noticed > 200


def rewritten(**changes: Any) -> bytes:
    """The file with other values, or (None, and not for the label) without the column."""
    table = pq.read_table(io.BytesIO(FORMAT.encode(PREDICTION)))
    row, schema = table.to_pylist()[0], table.schema
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{**row, **changes}], schema), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scores": SCORES.tobytes()[:-2]}, r"838 bytes of scores do not fit their shape \[21, 4, 5\]"),
        ({"scores_shape": [21, 5, 5]}, "do not fit their shape"),
        ({"scores_shape": [-21, -4, 5]}, "sizes must be positive"),
        ({"scores_shape": [0, 4, 5], "scores": b""}, "sizes must be positive"),
        ({"scores_shape": [None, 4, 5]}, "sizes must be positive"),
        ({"scores_shape": None}, "no scores_shape"),
        ({"scores": np.full_like(SCORES, np.inf).tobytes()}, "scores are not finite"),
        ({"height": 21}, "the image is of 20×30, but should be of 21×30"),
        ({"height": None}, "no height"),
        ({"width": 0}, "sizes must be positive"),
        ({"image": b"no image"}, "the image is unreadable"),
        ({"image": None}, "no image"),
        ({"label": png(30, 20)}, "the label is of 30×20"),
        ({"id": None}, "no id"),
    ],
    ids=str,
)
def test_a_file_that_contradicts_itself_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_scores(rewritten(**changes))


def test_another_parquet_file_is_refused() -> None:
    table = pq.read_table(io.BytesIO(FORMAT.encode(PREDICTION)))
    others = {
        "the columns are": [table.drop_columns("grid"), table.rename_columns([*table.column_names[:-1], "x"])],
        "2 rows": [pa.concat_tables([table, table])],
        "0 rows": [table.slice(0, 0)],
    }
    for reason, tables in others.items():
        for other in tables:
            file = io.BytesIO()
            pq.write_table(other, file)
            with pytest.raises(ValueError, match=reason):
                read_scores(file.getvalue())
