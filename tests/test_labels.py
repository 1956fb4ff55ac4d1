"""The table of classes: colours and values of train ids, and what JSON and pickle leave of it."""

import json
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deeplab_ray.labels import IGNORE, ClassTable

TABLE = ClassTable(("road", "Straße"), ((128, 64, 128), (1, 2, 3)), (7, 33), ignore_value=0)
IDS = np.array([[0, 1, IGNORE]], np.uint8)


@pytest.mark.parametrize(
    "table", [TABLE, pickle.loads(pickle.dumps(TABLE)), ClassTable.from_json(json.loads(json.dumps(TABLE.to_json())))]
)
def test_a_table_tells_colours_and_values_also_after_a_journey(table: ClassTable) -> None:
    assert table == TABLE
    assert len(table) == 2
    np.testing.assert_array_equal(table.colourise(IDS), [[(128, 64, 128), (1, 2, 3), (0, 0, 0)]])
    values = table.to_values(IDS)
    np.testing.assert_array_equal(values, [[7, 33, 0]])
    assert values.dtype == np.uint8


def test_a_train_id_that_is_no_class_has_no_value() -> None:
    with pytest.raises(ValueError, match="train id 2 is none of the 2 classes"):
        TABLE.to_values(np.full((2, 2), 2, np.uint8))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"names": ()}, "0 classes"),
        ({"names": ("a",)}, "1 classes have 2 colours and 2 values"),
        ({"colours": ((0, 0, 0), (0, 0, 256))}, r"a colour is three numbers of 0\.\.255"),
        ({"values": (7, 256)}, r"must lie in 0\.\.255"),
        ({"values": (7, 7)}, "need one of their own"),
        ({"ignore_value": 33}, "need one of their own"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(TABLE, **fields)
