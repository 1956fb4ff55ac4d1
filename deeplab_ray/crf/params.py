"""Parameters of the CRF, and the published values."""

from dataclasses import dataclass

from deeplab_ray.checks import check_types, require


@dataclass(frozen=True)
class CRFParams:
    """Parameters of the fully connected CRF (equation 3 of the paper) and of its mean-field inference.

    k(i, j) = w1 exp(−|Δp|²/2σα² − |ΔI|²/2σβ²) + w2 exp(−|Δp|²/2σγ²), under the Potts model.
    The defaults are those that the authors used with DeepLab v2 ResNet-101 on VOC 2012. Raises UserError if a value is
    out of range.
    """

    w1: float = 4.0
    """Weight of the bilateral (position and colour) kernel."""
    sigma_alpha: float = 67.0
    """Standard deviation of the bilateral kernel in position, in pixels."""
    sigma_beta: float = 3.0
    """Standard deviation of the bilateral kernel in colour, in grey levels of 0..255."""
    w2: float = 3.0
    """Weight of the spatial kernel."""
    sigma_gamma: float = 1.0
    """Standard deviation of the spatial kernel, in pixels."""
    iterations: int = 10
    """Number of mean-field iterations."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self.w1 >= 0 and self.w2 >= 0, f"CRF weights w1={self.w1}, w2={self.w2} must not be negative")
        for name in ("sigma_alpha", "sigma_beta", "sigma_gamma"):
            require(getattr(self, name) > 0, f"CRF width {name}={getattr(self, name)} must be above 0")
        require(self.iterations >= 1, f"CRF iterations {self.iterations} must be at least 1")


PAPER_CRFS = {
    "deeplab-v2-resnet101-voc12": CRFParams(w1=4, sigma_alpha=67, sigma_beta=3, w2=3, sigma_gamma=1),
    "deeplab-v2-vgg16-voc12": CRFParams(w1=4, sigma_alpha=65, sigma_beta=3, w2=2, sigma_gamma=2),
    "deeplab-largefov-voc12": CRFParams(w1=4, sigma_alpha=51, sigma_beta=5, w2=3, sigma_gamma=3),
}
"""The CRFs that the authors published, by model. They published none for Context, Person-Part and Cityscapes: search
for one with jobs/search_crf.py."""
