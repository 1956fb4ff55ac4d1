"""The CRF alone, on stored scores or on other people's probability maps: no network, no GPU."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from deeplab_ray.config.io import from_dict
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.images import MAX_PIXELS
from deeplab_ray.inputs import FolderInputs
from deeplab_ray.labels import ClassTable
from deeplab_ray.on_ray.infer.chain import Stage
from deeplab_ray.on_ray.infer.delivery import Begun, Order
from deeplab_ray.on_ray.infer.stages import Target, refine_stage, step
from deeplab_ray.on_ray.infer.work import unit_size
from deeplab_ray.on_ray.resources import plan_refiners
from deeplab_ray.outputs.formats import Values, make
from deeplab_ray.outputs.scores import read_scores
from deeplab_ray.outputs.stored import Kind, MappedInputs, anonymous, open_maps, open_scores, read_record
from deeplab_ray.shards import MANIFEST, Manifest
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate

RECORD = "refine.json"


@dataclass(frozen=True)
class Request:
    """What is to be refined, and what was found out about it without Ray."""

    order: Order
    inputs: FolderInputs | MappedInputs
    """Stored scores, or images with maps."""
    classes: int
    crf: CRFParams | None
    max_pixels: int

    def stages(self, begun: Begun, resources: InferenceResources) -> tuple[list[Stage], int]:
        """The stage that fills the cluster, and how many images make a unit. Raises UserError if it is too small."""
        pool = plan_refiners(len(begun.todo), resources)
        write = step("Write", begun.order.target)
        kind: Kind = "probabilities"
        if isinstance(self.inputs, MappedInputs):
            read = step("ReadMaps", self.inputs, self.classes, self.max_pixels, begun.there)
            kind = self.inputs.kind
        else:
            read = step("ReadScores", self.inputs, begun.there)
        stage = refine_stage(self.classes, self.crf, pool, write, kind=kind)
        return [Stage(stage.name, (read, *stage.steps), pool)], unit_size(len(begun.todo), 0, 0)


def check_request(
    input_uri: str,
    output_uri: str,
    probabilities: str | None = None,
    kind: Kind = "probabilities",
    classes_uri: str | None = None,
    formats: Iterable[str] = ("index",),
    values: Values = "train-ids",
    crf: CRFParams | Literal["stored"] | None = "stored",
    max_pixels: int = MAX_PIXELS,
) -> Request:
    """Find out all that can be told before Ray starts.

    input_uri: scores that jobs/predict.py stored; with `probabilities`, a folder of .npy or .npz maps, a folder of
    images. classes_uri: a prepared split, for the names, colours and values of its classes; None for those that are
    stored with the scores, or numbers. crf: parameters, None to leave the CRF out, or "stored" for those that the
    scores were made for (of maps: the defaults). Raises UserError if something is not there or does not go together.
    """
    output = locate(output_uri)
    read = [locate(uri) for uri in (input_uri, probabilities, classes_uri) if uri]
    check_access(read=read, write=[output])
    stored: dict[str, Any] = {}
    inputs: FolderInputs | MappedInputs
    if probabilities:
        inputs = open_maps(input_uri, probabilities, kind)
        count = _classes_of_maps(inputs)
    else:
        inputs = open_scores(input_uri)
        stored = read_record(input_uri)
        count = _classes_of_scores(inputs)
    table = _table(classes_uri, stored, count)
    names = list(dict.fromkeys(formats))
    if not names or "scores" in names:
        raise UserError("--format takes cityscapes, voc, index or overlay, at least one: scores are what goes in")
    params = crf if not isinstance(crf, str) else CRFParams()
    if isinstance(crf, str) and stored.get("crf"):
        params = from_dict(stored["crf"], CRFParams, input_uri)
    asked = {
        "input": inputs.uri,
        "probabilities": probabilities and locate(probabilities).uri,
        "kind": kind,
        "formats": names,
        "index_values": values,
        "crf": asdict(params) if params else None,
        "classes": table.to_json(),
    }
    target = Target(output, tuple(make(name, table, values) for name in names))
    order = Order(inputs, target, asked, RECORD, ids_by_reading=not probabilities)
    order.check_output()
    return Request(order, inputs, count, params, max_pixels)


def _classes_of_maps(inputs: MappedInputs) -> int:
    """The number of classes, by the first map that can be read."""
    problem = "there is no image"
    for key in inputs.keys().slice(0, 100).to_pylist():
        try:
            return len(inputs.read_map(key))
        except (FileNotFoundError, ValueError) as error:
            problem = f"{key}: {error}"
    raise UserError(f"none of the first maps in {inputs.maps} can be read ({problem})")


def _classes_of_scores(inputs: FolderInputs) -> int:
    problem = "there is none"
    for key in inputs.keys().slice(0, 100).to_pylist():
        try:
            return len(read_scores(inputs.read(key).image).scores)
        except (FileNotFoundError, ValueError) as error:
            problem = f"{key}: {error}"
    raise UserError(f"none of the first scores in {inputs.uri} can be read ({problem})")


def _table(uri: str | None, stored: dict[str, Any], count: int) -> ClassTable:
    if uri:
        file = locate(uri) / MANIFEST
        try:
            table = Manifest.from_json(file.read_bytes()).classes
        except (OSError, ValueError) as error:
            raise UserError(f"--classes {uri} is no prepared split ({error}): give the folder of one") from None
    elif stored.get("classes"):
        table = ClassTable.from_json(stored["classes"])
    else:
        table = anonymous(count)
    if len(table) != count:
        raise UserError(f"the maps are of {count} classes, the table of {len(table)}: give --classes that go with them")
    return table
