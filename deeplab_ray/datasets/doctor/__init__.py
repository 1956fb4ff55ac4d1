"""What is wrong with a set of images and labels, and what to do about it: told before anything is prepared.

Each finding is one sentence with counts and the id of an example, and a fix: a flag of jobs/prepare.py, or what to do
with one's own files. It reads `survey.Facts`, never a file.
"""

from collections.abc import Mapping

from deeplab_ray.datasets.base import Dataset
from deeplab_ray.datasets.doctor.case import SEVERITIES, Case, Finding
from deeplab_ray.datasets.doctor.classes import check_classes, check_ignored
from deeplab_ray.datasets.doctor.files import check_kinds
from deeplab_ray.datasets.doctor.places import check_places
from deeplab_ray.datasets.doctor.splits import check_splits
from deeplab_ray.datasets.doctor.values import check_values
from deeplab_ray.datasets.facts import Facts

__all__ = ["Finding", "examine"]


def examine(facts: Mapping[str, Facts], dataset: Dataset) -> list[Finding]:
    """Tell what is wrong with a set, given the facts of each split: errors first, then warnings, then notes.

    Errors are what makes a prepared set useless, warnings what looks like a mistake, notes plain facts. What follows
    from an error, such as classes that never occur where all values are wrong, is not told as well.
    """
    case = Case(facts, dataset)
    findings = [*check_kinds(case), *check_places(case)]
    if not _errors(findings):
        findings += check_values(case)
    if not _errors(findings):
        findings += [*check_classes(case), *check_ignored(case)]
    findings += check_splits(case)
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _errors(findings: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)
