"""What a prepared set holds, for whoever looks at it: as text, as a page, and whether its shards are whole."""

from deeplab_ray.report.inspection.inspection import Inspection, inspect
from deeplab_ray.report.inspection.page import write_page
from deeplab_ray.report.inspection.text import format_text

__all__ = ["Inspection", "format_text", "inspect", "write_page"]
