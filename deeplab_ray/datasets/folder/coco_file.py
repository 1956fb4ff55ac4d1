"""A COCO JSON file: which images it is about, and what is drawn on each."""

import json
from collections import Counter, defaultdict
from typing import Any

from deeplab_ray.errors import UserError
from deeplab_ray.storage.location import Location


def read(file: Location) -> dict[str, dict[str, Any]]:
    """file_name → what the format `shapes.Coco` draws: size [height, width] and shapes [name, segmentation], in the
    file's order. UserError if the file is not of this kind."""
    try:
        given = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file} is no JSON: {error}") from None
    try:
        names = {each["id"]: str(each["name"]) for each in given["categories"]}
        shapes: dict[Any, list[list[Any]]] = defaultdict(list)
        for each in given["annotations"]:
            # Captions and boxes alone are annotations, too.
            if segmentation := each.get("segmentation"):
                shapes[each["image_id"]].append([names[each["category_id"]], segmentation])
        images = [
            (str(each["file_name"]), {"size": [int(each["height"]), int(each["width"])], "shapes": shapes[each["id"]]})
            for each in given["images"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{file} is no COCO file (images with file_name, height and width; annotations with image_id, category_id "
            f"and segmentation; categories): {reason}"
        ) from None
    twice = [name for name, count in Counter(name for name, _ in images).items() if count > 1]
    if twice:
        raise UserError(f"{file} has {twice[0]!r} twice among its images: leave one of them")
    if not any(each["shapes"] for _, each in images):
        raise UserError(f"{file} has no segmentation of any of its {len(images)} images: boxes alone are no labels")
    return dict(images)
