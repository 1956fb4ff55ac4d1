"""Flags that say what is to be predicted: those of jobs/predict.py, and of jobs/plan.py, which plans for it."""

import dataclasses
import math
import sys
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from tyro import MISSING

from deeplab_ray import cli, runs
from deeplab_ray.config.flags import value_of
from deeplab_ray.config.io import load
from deeplab_ray.config.recipe import FLAT, Precision
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.images import MAX_PIXELS
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate

if TYPE_CHECKING:
    from deeplab_ray.on_ray.infer.predict import Request

Format = Literal["cityscapes", "voc", "index", "overlay", "scores"]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is to be predicted, and on what."""

    checkpoint: str
    """A checkpoint's folder, or a training run's (its newest checkpoint); a local path or s3:// URI."""
    input: str
    """What to predict: a folder or prefix of images (searched through), an image, or output of jobs/prepare.py with
    --split; a local path or s3:// URI."""
    output: str
    """Folder for the results; a local path or s3:// URI. The same command again does what is missing there."""
    scoring: Annotated[ScoringConfig, FLAT]
    resources: Annotated[InferenceResources, FLAT]
    split: str | None = None
    """Split of a prepared set; unset: --input is a folder of images, or the split's own folder."""
    pattern: str | None = None
    """Which files of a folder are images, such as "*_leftImg8bit.png"; unset: by their usual endings."""
    format: tuple[Format, ...] = ("index",)
    """What to write, one or several: "cityscapes" (label ids as its evaluation server takes them), "voc" (palette PNGs
    and the server's tar), "index" (PNGs of train ids), "overlay" (labels over the image, for people, with a legend),
    "scores" (float16 scores, for jobs/refine.py and jobs/search_crf.py)."""
    index_values: Literal["train-ids", "own"] = "train-ids"
    """What pixels of "index" hold: train ids 0..C−1, or the values that the data set itself uses in label files."""
    crf: str = ""
    """JSON with CRF parameters (jobs/search_crf.py writes one); "none" leaves the CRF out. Empty: those of the
    checkpoint's recipe."""
    precision: Precision | None = None
    """Arithmetic of the network; unset: as it was trained."""
    max_megapixels: float = MAX_PIXELS / 1e6
    """Larger images fail, before they take memory."""

    def check(self) -> "Request":
        """Find out all that can be told before Ray starts; raises UserError as `predict.check_request` does."""
        if not 0 < self.max_megapixels < math.inf:
            raise UserError(f"--max-megapixels {self.max_megapixels:g} must be a number above 0")
        crf = _crf(self.crf)
        # Ray is imported only now.
        from deeplab_ray.on_ray.infer import predict

        return predict.check_request(
            self.checkpoint,
            self.input,
            self.output,
            self.split,
            self.pattern,
            self.format,
            self.index_values,
            crf,
            self.precision,
            self.scoring,
            round(self.max_megapixels * 1e6),
        )


Flags = TypeVar("Flags", bound=Prediction)


def parse(flags: type[Flags], prog: str, description: str) -> Flags:
    """Parse the command line; the scoring's defaults are those of the checkpoint that it names.

    Raises UserError for wrong usage, and if the checkpoint cannot be read.
    """
    named = value_of("--checkpoint", sys.argv[1:])
    if named:
        check_access(read=[locate(named)])
    scoring = runs.read_scoring(runs.find(named)) if named else ScoringConfig()
    default = flags(MISSING, MISSING, MISSING, scoring, InferenceResources())
    return cli.parse(flags, prog=prog, description=description, default=default)


def _crf(choice: str) -> CRFParams | Literal["checkpoint"] | None:
    if choice in ("", "none"):
        return None if choice else "checkpoint"
    return load(choice, CRFParams)
