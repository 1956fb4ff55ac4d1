"""What an evaluation shows: a page, a table for the terminal, a picture for a README."""

from deeplab_ray.report.comparison import ImageGain
from deeplab_ray.report.figure5 import BeliefMaps, belief_maps
from deeplab_ray.report.page import EvaluationReport, write_report
from deeplab_ray.report.pictures import GalleryRow, gallery_strip
from deeplab_ray.report.scores import format_table, loss_by_crf

__all__ = [
    "BeliefMaps",
    "EvaluationReport",
    "GalleryRow",
    "ImageGain",
    "belief_maps",
    "format_table",
    "gallery_strip",
    "loss_by_crf",
    "write_report",
]
