"""The head of FCN-32s, FCN-16s and FCN-8s (Long, Shelhamer & Darrell, CVPR 2015) on VGG-16.

fc6 and fc7 are convolutions over pool5; the scores of coarser layers are deconvolved by two and added to those of pool4
and pool3. Deconvolutions are bilinear and fixed, as in the authors' staged training. Every score layer starts at
zero, so that FCN-16s starts with the output of the FCN-32s whose weights it takes, and FCN-8s with that of FCN-16s.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_ray.models.configs import Variant
from deeplab_ray.models.grid import deconvolve
from deeplab_ray.models.heads.branches import init_hidden

# First row and column of the scores of pool4 and pool3 to which the deconvolved ones are added.
_POOL4_OFFSET, _POOL3_OFFSET = 5, 9
_CHANNELS = 4096


def _score(inputs: int, classes: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, classes, 1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class FCNHead(nn.Module):
    """pool3, pool4 and pool5 → scores N×C×h×w at stride 32, 16 or 8, on a `models.grid.DeconvolvedGrid`."""

    def __init__(self, inputs: int, classes: int, variant: Variant, dropout: float = 0.5) -> None:
        super().__init__()
        self.dropout = dropout
        self.fc6 = init_hidden(nn.Conv2d(inputs, _CHANNELS, 7))
        self.fc7 = init_hidden(nn.Conv2d(_CHANNELS, _CHANNELS, 1))
        self.classifier = _score(_CHANNELS, classes)
        self.classifier_pool4 = _score(512, classes) if variant in ("16s", "8s") else None
        self.classifier_pool3 = _score(256, classes) if variant == "8s" else None

    @property
    def last_layers(self) -> list[nn.Conv2d]:
        """The layers with an output for every class."""
        layers = (self.classifier, self.classifier_pool4, self.classifier_pool3)
        return [layer for layer in layers if layer is not None]

    def forward(self, pools: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        pool3, pool4, pool5 = pools
        x = F.dropout(F.relu(self.fc6(pool5)), self.dropout, self.training)
        x = F.dropout(F.relu(self.fc7(x)), self.dropout, self.training)
        scores = self.classifier(x)
        if self.classifier_pool4 is not None:
            scores = _add(deconvolve(scores, 2), self.classifier_pool4(pool4), _POOL4_OFFSET)
        if self.classifier_pool3 is not None:
            scores = _add(deconvolve(scores, 2), self.classifier_pool3(pool3), _POOL3_OFFSET)
        return scores


def _add(coarse: Tensor, fine: Tensor, offset: int) -> Tensor:
    h, w = coarse.shape[-2:]
    return coarse + fine[..., offset : offset + h, offset : offset + w]
