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
from deeplab_ray.on_ray.infer.delivery import Begun, Order, check_place
from deeplab_ray.on_ray.infer.stages import Target, refine_stage, step
from deeplab_ray.on_ray.infer.work import unit_size
from deeplab_ray.on_ray.resources import plan_refiners
from deeplab_ray.outputs.formats import Values, make
from deeplab_ray.outputs.record import REFINE
from deeplab_ray.outputs.scores import read_scores
from deeplab_ray.outputs.stored import Kind, MappedInputs, anonymous, open_maps, open_scores, read_record
from deeplab_ray.shards import MANIFEST, Manifest
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate

_FIRST = 100
"""Files that are looked at to find out the number of classes."""


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
            read = step("ReadScores", self.inputs, self.classes, begun.there)
        return [refine_stage(read, self.classes, self.crf, pool, write, kind=kind)], unit_size(len(begun.todo), 0, 0)


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
    check_place(output, input_uri, REFINE)
    stored: dict[str, Any] = {}
    inputs: FolderInputs | MappedInputs
    if probabilities:
        inputs = open_maps(input_uri, probabilities, kind, exclude=output)
    else:
        inputs = open_scores(input_uri, exclude=output)
        stored = read_record(input_uri)
    known = _table(classes_uri, stored.get("classes") or {})
    count = _count(inputs, known)
    table = known or anonymous(count)
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
    files = inputs.images if isinstance(inputs, MappedInputs) else inputs
    order = Order(files, target, asked, REFINE, ids_by_reading=not probabilities)
    order.check_output()
    return Request(order, inputs, count, params, max_pixels)


def _table(uri: str | None, stored: dict[str, Any]) -> ClassTable | None:
    """The classes of a prepared split, or those that are stored with the scores; None if nobody says."""
    if not uri:
        return ClassTable.from_json(stored) if stored else None
    try:
        return Manifest.from_json((locate(uri) / MANIFEST).read_bytes()).classes
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"--classes {uri} is no prepared split: give the folder of one, with a {MANIFEST}") from None
    except ValueError as error:
        raise UserError(f"--classes {uri} is no prepared split ({error}): give the folder of one") from None


def _count(inputs: FolderInputs | MappedInputs, table: ClassTable | None) -> int:
    """The number of classes: the table's, if one of the first files has so many; without a table the first one's."""
    problem, other = "", 0
    for key in inputs.keys().slice(0, _FIRST).to_pylist():
        try:
            if isinstance(inputs, MappedInputs):
                found = len(inputs.read_map(key))
            else:
                found = len(read_scores(inputs.read(key).image).scores)
        except (FileNotFoundError, ValueError) as error:
            problem = problem or f"{key}: {error}"
            continue
        if table is None or found == len(table):
            return found
        other = found
    if other and table:
        raise UserError(f"the maps are of {other} classes, the table of {len(table)}: give --classes that go with them")
    what = f"maps in {inputs.maps}" if isinstance(inputs, MappedInputs) else f"scores in {inputs.uri}"
    raise UserError(f"none of the first {what} can be read ({problem})")
