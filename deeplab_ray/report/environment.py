"""What turns the templates beside it into pages: HTML text that needs nothing else and runs no script."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from deeplab_ray.report import curves
from deeplab_ray.report.scores import percent, signed

TEMPLATES = Environment(
    loader=PackageLoader("deeplab_ray.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters.update(percent=percent, signed=signed)
TEMPLATES.globals["chart"] = curves
