"""Batch prediction: read → predict → refine → write, for every image of a prepared split or a folder."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal

from deeplab_ray import runs
from deeplab_ray.config.io import as_dict
from deeplab_ray.config.recipe import Precision, Recipe
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.images import MAX_PIXELS
from deeplab_ray.inputs import SplitInputs, open_inputs
from deeplab_ray.models.meta import read_meta
from deeplab_ray.on_ray.infer.chain import Stage
from deeplab_ray.on_ray.infer.delivery import Begun, Order, check_place
from deeplab_ray.on_ray.infer.stages import Scorer, Target, predict_stage, refine_stage, reread, step
from deeplab_ray.on_ray.infer.work import unit_size
from deeplab_ray.on_ray.resources import plan_pools
from deeplab_ray.outputs.formats import Values, make
from deeplab_ray.outputs.record import PREDICT
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import Location, locate


@dataclass(frozen=True)
class Request:
    """What is to be predicted, and what was found out about it without Ray."""

    order: Order
    checkpoint: Location
    classes: int
    recipe: Recipe
    """The checkpoint's, with the scoring and precision that are asked for."""
    crf: CRFParams | None
    max_pixels: int

    def stages(self, begun: Begun, resources: InferenceResources) -> tuple[list[Stage], int]:
        """The stages that fill the cluster, and how many images make a unit. Raises UserError if it is too small."""
        order, todo = self.order, begun.todo
        scorer = Scorer.of(self.checkpoint, self.recipe, self.classes, resources.batch)
        write = step("Write", order.target)
        # Without labels there is nothing to refine.
        scores_alone = all(each.name == "scores" for each in order.target.formats)
        pools = plan_pools(len(todo), resources)
        stages = [
            predict_stage(
                order.inputs, scorer, pools.predict, self.max_pixels, begun.there, *([write] if scores_alone else [])
            )
        ]
        if not scores_alone:
            again = reread(order.inputs, self.max_pixels)
            stages.append(refine_stage(again, self.classes, self.crf, pools.refine, write))
        return stages, unit_size(len(todo), resources.batch, pools.predictor_gpus)


def check_request(
    checkpoint_uri: str,
    input_uri: str,
    output_uri: str,
    split: str | None = None,
    pattern: str | None = None,
    formats: Iterable[str] = ("index",),
    values: Values = "train-ids",
    crf: CRFParams | Literal["checkpoint"] | None = "checkpoint",
    precision: Precision | None = None,
    scoring: ScoringConfig | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Request:
    """Find out all that can be told before Ray starts; what it returns is for `run`.

    crf: parameters, None to leave the CRF out, or "checkpoint" for those of the checkpoint's recipe. precision and
    scoring: None for those of the recipe. Raises UserError, with what to do, if something of it is not there or does
    not go together, and if the output holds the results of another request.
    """
    names = list(dict.fromkeys(formats))
    if not names:
        raise UserError("--format names no format: give at least one, such as index")
    output = locate(output_uri)
    check_access(read=[locate(checkpoint_uri), locate(input_uri)], write=[output])
    check_place(output, input_uri, PREDICT)
    place = runs.find(checkpoint_uri)
    meta = read_meta(place)
    chosen = tuple(make(name, meta.classes, values) for name in names)
    inputs = open_inputs(input_uri, split, pattern, exclude=output)
    if meta.recipe.network.channels != 3:
        raise UserError(f"the checkpoint {place} is for images of {meta.recipe.network.channels} channels, not of 3")
    params = meta.recipe.crf if isinstance(crf, str) else crf
    recipe = replace(meta.recipe, precision=precision or meta.recipe.precision, scoring=scoring or meta.recipe.scoring)
    asked = {
        "checkpoint": place.uri,
        "checkpoint_sha256": hashlib.sha256((place / runs.META).read_bytes()).hexdigest(),
        "input": inputs.uri,
        "pattern": pattern,
        "formats": names,
        "index_values": values,
        "crf": asdict(params) if params else None,
        "precision": recipe.precision,
        "scoring": as_dict(recipe.scoring),
        "classes": meta.classes.to_json(),
    }
    if isinstance(inputs, SplitInputs):
        asked["data_digest"] = inputs.split.manifest.digest
    order = Order(inputs, Target(output, chosen), asked, PREDICT)
    order.check_output()
    return Request(order, place, len(meta.classes), recipe, params, max_pixels)
