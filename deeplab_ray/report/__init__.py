"""What an evaluation shows: a page, a table for the terminal, a picture for a README."""

from deeplab_ray.report.page import EvaluationReport, write_report
from deeplab_ray.report.pictures import GalleryRow, gallery_strip
from deeplab_ray.report.scores import format_table

__all__ = ["EvaluationReport", "GalleryRow", "format_table", "gallery_strip", "write_report"]
