"""The steps of inference: read, predict, refine, and what is made of the result: figures, files.

What crosses the object store between the predictors (GPU, or CPU) and the CRF pool (CPU) are float16 scores at the
network's resolution, and image files up to 1 MiB; larger ones are read again. Probabilities at full size exist only
inside a CRF actor. What goes to the driver are ids and counts.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from deeplab_ray.crf import CRFParams, DenseCRF
from deeplab_ray.images import decode_image, decode_label, decode_upright, encode_label
from deeplab_ray.inputs import FolderInputs, Inputs
from deeplab_ray.machine import usable_cpus
from deeplab_ray.metrics import boundary_distance, confusion_matrix, trimap_counts
from deeplab_ray.models import checkpoint
from deeplab_ray.models.grid import parse
from deeplab_ray.models.scoring import best_batch, score_batch
from deeplab_ray.on_ray.infer.stage import Aside, Row, Step
from deeplab_ray.on_ray.infer.stages import Scorer, Target
from deeplab_ray.outputs.prediction import Prediction
from deeplab_ray.outputs.publish import publish
from deeplab_ray.outputs.scores import read_scores
from deeplab_ray.outputs.stored import Kind, MappedInputs
from deeplab_ray.report.figure5 import belief_maps
from deeplab_ray.storage.patience import with_patience

_READERS = 8
"""Images of a unit that are read at a time."""
_CARRIED = 2**20
"""Bytes of an image file that go along with its scores from stage to stage; larger ones are read again."""
_LARGEST = float(np.finfo(np.float16).max)


class Read(Step):
    """Key → id, image and label (encoded bytes), and the decoded image. Photographs of a folder are turned upright, as
    EXIF says; then "image" is a PNG of that."""

    name = "read"
    exclusive = False

    def __init__(self, inputs: Inputs, max_pixels: int, target: Target | None = None) -> None:
        """target: files of an earlier run; images that have all of theirs are not computed again."""
        self.inputs, self.max_pixels, self.target = inputs, max_pixels, target
        self._readers = ThreadPoolExecutor(_READERS)

    def many(self, rows: list[Row], aside: Aside) -> list[Row]:
        read = list(self._readers.map(lambda row: aside.attempt(self.name, row, self.one), rows))
        aside.finished += [row for row in read if row is not None and "image" not in row]
        return [row for row in read if row is not None and "image" in row]

    def one(self, row: Row) -> Row:
        if row["id"] and self._there(row["id"]):
            return row
        sample = self.inputs.read(row["key"])
        if not row["id"]:
            row["id"] = sample.id
            if self._there(sample.id):
                return row
        if isinstance(self.inputs, FolderInputs):
            # Whoever takes it from here reads no EXIF.
            pixels, image = decode_upright(sample.image, self.max_pixels)
        else:
            pixels, image = decode_image(sample.image, max_pixels=self.max_pixels), sample.image
        return row | {"image": image, "label": sample.label, "_pixels": pixels}

    def _there(self, id: str) -> bool:
        return _complete(self.target, id)


class Shed(Step):
    """Drop a large image file before the row goes on to another stage, which can read it again: it is several times as
    large as the scores, and storage is made for it."""

    name = "shed"
    exclusive = False

    def one(self, row: Row) -> Row:
        return row | {"image": None} if len(row["image"]) > _CARRIED else row


class Reread(Read):
    """The image of rows that lost theirs on the way, by their key."""

    def many(self, rows: list[Row], aside: Aside) -> list[Row]:
        read = self._readers.map(lambda row: aside.attempt(self.name, row, self.one), rows)
        return [row for row in read if row is not None]

    def one(self, row: Row) -> Row:
        if row["image"] is not None:
            return row
        read = super().one({"key": row["key"], "id": row["id"]})
        return row | {"image": read["image"], "_image": read["_pixels"]}


class ReadScores(Step):
    """Key → what `outputs.scores` stored: id, image, label, scores, shape, grid."""

    name = "read"
    exclusive = False

    def __init__(self, inputs: Inputs, classes: int | None = None, target: Target | None = None) -> None:
        """classes: how many the scores must have; None: any number. target: files of an earlier run; images that have
        all of theirs are not refined again."""
        self.inputs, self.classes, self.target = inputs, classes, target

    def many(self, rows: list[Row], aside: Aside) -> list[Row]:
        read = [result for row in rows if (result := aside.attempt(self.name, row, self.one)) is not None]
        aside.finished += [row for row in read if "image" not in row]
        return [row for row in read if "image" in row]

    def one(self, row: Row) -> Row:
        stored = read_scores(self.inputs.read(row["key"]).image)
        row["id"] = stored.id
        if _complete(self.target, stored.id):
            return row
        if self.classes and len(stored.scores) != self.classes:
            raise ValueError(f"its scores are of {len(stored.scores)} classes, others of {self.classes}")
        scores = {"scores": stored.scores.tobytes(), "shape": stored.scores.shape, "grid": stored.grid}
        return row | {"image": stored.image, "label": stored.label} | scores


class ReadMaps(Read):
    """Key → image as `Read` does, and its map: "_map", float32 C×h×w."""

    def __init__(self, inputs: MappedInputs, classes: int, max_pixels: int, target: Target | None = None) -> None:
        super().__init__(inputs.images, max_pixels, target)
        self.maps, self.classes = inputs, classes

    def one(self, row: Row) -> Row:
        row = super().one(row)
        if "image" not in row:
            return row
        found = self.maps.read_map(row["key"])
        if len(found) != self.classes:
            raise ValueError(f"its map is of {len(found)} classes, others of {self.classes}")
        return row | {"_map": found}


class Predict(Step):
    """Image → "scores", float16 bytes of C×h×w ("shape") as the network gives them, and their "grid"."""

    name = "predict"

    def __init__(self, scorer: Scorer, device: str) -> None:
        self.scorer, self.device, self.batch = scorer, torch.device(device), scorer.batch
        self.network = checkpoint.load_model(scorer.checkpoint, scorer.network, scorer.classes).on(self.device)
        self._found: dict[tuple[int, ...], int] = {}
        if self.device.type == "cpu":
            # Ray sets one thread for a fraction of a CPU; the CRF actors are idle until scores arrive.
            torch.set_num_threads(usable_cpus())

    def many(self, rows: list[Row], aside: Aside) -> list[Row]:
        scored = []
        groups: dict[tuple[int, ...], list[Row]] = {}
        for row in rows:
            groups.setdefault(row["_pixels"].shape, []).append(row)
        for group in groups.values():
            size = self._batch_for(group[0]["_pixels"])
            for start in range(0, len(group), size):
                scored += self._together(group[start : start + size], aside)
        return scored

    def one(self, row: Row) -> Row:
        return self._score([row])[0]

    def _together(self, rows: list[Row], aside: Aside) -> list[Row]:
        """Score a batch; one by one if that fails, so that only those to blame are failed ones."""
        if len(rows) > 1:
            with_all = Aside()
            done = with_all.attempt(self.name, {"key": "", "id": ""}, lambda _: {"rows": self._score(rows)})
            if done is not None:
                return done["rows"]
        return super().many(rows, aside)

    def _score(self, rows: list[Row]) -> list[Row]:
        images = np.stack([row["_pixels"] for row in rows])
        scores, grid = score_batch(self.network, images, self.device, self.scorer.precision, self.scorer.scoring)
        if not torch.isfinite(scores).all():
            raise ValueError("scores are not finite: the checkpoint is broken, or the precision too low")
        # Larger scores would become infinite, and no probability.
        half = scores.clamp(-_LARGEST, _LARGEST).to(torch.float16).cpu().numpy()
        added = ({"scores": each.tobytes(), "shape": each.shape, "grid": str(grid)} for each in half)
        return [row | more for row, more in zip(rows, added, strict=True)]

    def _batch_for(self, pixels: NDArray[np.uint8]) -> int:
        if self.batch or self.device.type == "cpu":
            return self.batch or 1
        if pixels.shape not in self._found:

            def score(count: int) -> None:
                images = np.broadcast_to(pixels, (count, *pixels.shape))
                score_batch(self.network, images, self.device, self.scorer.precision, self.scorer.scoring)

            self._found[pixels.shape] = best_batch(score)
        return self._found[pixels.shape]


class Refine(Step):
    """Scores → the labels before and after the CRF, and the image and probabilities that they were made of."""

    name = "refine"

    def __init__(self, classes: int, params: CRFParams | None, kind: Kind = "probabilities") -> None:
        """kind: what maps hold that are no scores of ours."""
        torch.set_num_threads(1)
        self.kind = kind
        self.crf = DenseCRF(params) if params else None
        if self.crf:
            self.crf.warm(classes)

    def one(self, row: Row) -> Row:
        image = row["_image"] if "_image" in row else decode_image(row["image"], max_pixels=None)
        if "_map" in row:
            probabilities = map_probabilities(row["_map"], self.kind, *image.shape[:2])
        else:
            probabilities = full_size_probabilities(row, *image.shape[:2])
        before = probabilities.argmax(axis=0).astype(np.uint8)
        after = self.crf.labels(image, probabilities) if self.crf else None
        return row | {"_image": image, "_probabilities": probabilities, "_before": before, "_after": after}


class Measure(Step):
    """Labels before and after the CRF → counts against the truth: "measured", named arrays.

    confusion, confusion_crf: int64 C×C, rows the truth. trimap, trimap_crf: see `metrics.trimap_counts`. Those of the
    CRF are missing if none ran.
    """

    name = "measure"

    def __init__(self, classes: int) -> None:
        """Of rows with "labels" it also keeps what was predicted, as "network" and "network_crf", PNGs of train ids."""
        self.classes = classes

    def one(self, row: Row) -> Row:
        truth = decode_label(row["label"])
        if truth.shape != row["_before"].shape:
            height, width = row["_before"].shape
            raise ValueError(f"label is {truth.shape[1]}×{truth.shape[0]}, image {width}×{height} pixels")
        distance = boundary_distance(truth)
        measured, labels = {}, {}
        for ending, predicted in (("", row["_before"]), ("_crf", row["_after"])):
            if predicted is not None:
                measured[f"confusion{ending}"] = confusion_matrix(truth, predicted, self.classes)
                measured[f"trimap{ending}"] = trimap_counts(truth, predicted, self.classes, distance=distance)
                if row.get("labels"):
                    labels[f"network{ending}"] = encode_label(predicted)
        kept = {name: row[name] for name in ("key", "id", "belief_maps") if name in row}
        return kept | {"measured": measured} | labels


class DrawBeliefs(Step):
    """Of rows with "beliefs", a class's train id: its score and belief maps, "belief_maps" (see `report.figure5`)."""

    name = "draw"

    def __init__(self, params: CRFParams) -> None:
        self.params = params

    def one(self, row: Row) -> Row:
        if row.get("beliefs") is None:
            return row
        return row | {"belief_maps": belief_maps(row["_image"], row["_probabilities"], self.params, row["beliefs"])}


class TryCRFs(Step):
    """Scores → "measured": confusion matrices, int64 (1 + candidates)×C×C: the network's, then each CRF's."""

    name = "try CRFs"

    def __init__(self, classes: int | None, candidates: Sequence[CRFParams]) -> None:
        """classes: their number, or None if only the scores tell."""
        torch.set_num_threads(1)
        first = DenseCRF(candidates[0])
        if classes:
            first.warm(classes)
        self.crfs = [first, *(DenseCRF(params, share=first) for params in candidates[1:])]

    def one(self, row: Row) -> Row:
        if row["label"] is None:
            raise ValueError("it has no label")
        image, truth = decode_image(row["image"], max_pixels=None), decode_label(row["label"])
        probabilities = full_size_probabilities(row, *image.shape[:2])
        labels = [probabilities.argmax(axis=0).astype(np.uint8)]
        labels += [crf.labels(image, probabilities) for crf in self.crfs]
        matrices = [confusion_matrix(truth, predicted, len(probabilities)) for predicted in labels]
        return {"key": row["key"], "id": row["id"], "measured": {"confusions": np.stack(matrices)}}


class Write(Step):
    """Labels, or scores alone, → files in their places."""

    name = "write"
    exclusive = False

    def __init__(self, target: Target) -> None:
        self.target = target

    def one(self, row: Row) -> Row:
        scores = np.frombuffer(row.get("scores", b""), np.float16).reshape(row.get("shape", (0, 0, 0)))
        image = row["_image"] if "_image" in row else row["_pixels"]
        labels = row.get("_after") if row.get("_after") is not None else row.get("_before")
        if labels is None:
            labels = np.broadcast_to(np.uint8(0), image.shape[:2])
        what = Prediction(row["id"], image, labels, row["image"], row["label"], scores, row.get("grid", ""))
        written = 0
        for each in self.target.formats:
            content = each.encode(what)
            publish(self.target.output, each.path(row["id"]), content)
            written += len(content)
        return {"key": row["key"], "id": row["id"], "written": written}


def _complete(target: Target | None, id: str) -> bool:
    """Whether an earlier run has written all files of this image."""
    return target is not None and with_patience(lambda: target.complete(id), target.output)


def full_size_probabilities(row: Row, height: int, width: int) -> NDArray[np.float32]:
    """A scored row → softmax probabilities float32 C×H×W: upsample the scores, then normalise."""
    half = np.frombuffer(row["scores"], np.float16).reshape(row["shape"])
    scores = parse(row["grid"]).to_image(torch.from_numpy(half.astype(np.float32))[None], height, width)
    return scores.softmax(dim=1)[0].numpy()


def map_probabilities(given: NDArray[np.float32], kind: Kind, height: int, width: int) -> NDArray[np.float32]:
    """A map of another size, C×h×w → probabilities float32 C×H×W; interpolated bilinearly, pixel centres aligned.

    Raises ValueError for probabilities that are negative or do not sum to one within 1e-2 at each pixel.
    """
    if kind == "probabilities":
        sums = given.sum(axis=0)
        if given.min() < 0 or abs(sums - 1).max() > 1e-2:
            raise ValueError("its map is not of probabilities, which sum to one at each pixel: pass --kind scores")
        given = given / sums
    planes = torch.from_numpy(given)[None]
    if given.shape[1:] != (height, width):
        planes = interpolate(planes, size=(height, width), mode="bilinear", align_corners=False)
    return (planes.softmax(dim=1) if kind == "scores" else planes)[0].numpy()
