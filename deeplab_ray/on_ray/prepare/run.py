"""A preparation from its survey to its manifests."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from deeplab_ray.cli import say
from deeplab_ray.datasets import Dataset
from deeplab_ray.datasets.doctor import Finding, examine
from deeplab_ray.datasets.doctor.case import SEVERITIES
from deeplab_ray.errors import JobError, UserError
from deeplab_ray.on_ray.prepare import publish, survey, write
from deeplab_ray.on_ray.prepare.plan import SplitPlan, plan
from deeplab_ray.on_ray.prepare.request import Options, Request, check_request
from deeplab_ray.on_ray.prepare.survey import Surveyed
from deeplab_ray.on_ray.prepare.write import Written
from deeplab_ray.shards import Bad, Manifest
from deeplab_ray.storage.claim import Claim, claimed

_NAMED_IN_ERROR = 3


def prepare(
    dataset: str | Dataset, source: str, output: str, splits: Sequence[str] | None = None, **options: Any
) -> dict[str, Manifest]:
    """Check a request and carry it out, see `check_request` and `carry_out`. Ray must run.

    options: those of `Options`.
    """
    return carry_out(check_request(dataset, source, output, splits, Options(**options)))


def carry_out(request: Request) -> dict[str, Manifest]:
    """Check every pair, tell what is odd about them, and write them as shards below the output's <split>; returns the
    manifests by split.

    Nothing is published before all splits are found good (or, with `skip_bad`, their bad pairs dropped and listed in
    the manifest). What was prepared there before is replaced in one step. A run that is interrupted, or ends as storage
    fails, leaves what the same command then goes on from; one that fails otherwise leaves nothing behind but, for bad
    pairs, their list in <output>/<split>/manifest.rejected.json.

    Raises UserError for bad pairs, for what the doctor calls an error, and if another job writes there. Ray must run.
    """
    with claimed(request.output, f"prepare {request.dataset.name}") as claim:
        for split in request.pairs:
            publish.forget_rejected(request.output / split)
        surveyed = survey.look(request, claim.check)
        facts = {split: found.facts for split, found in surveyed.items()}
        if request.finder:
            request = replace(request, dataset=request.finder.find(facts))
        findings = sorted([*_passed_over(request), *examine(facts, request.dataset)], key=_gravity)
        for finding in findings:
            print(_line(finding), flush=True)
        bad = {split: found.facts.bad for split, found in surveyed.items()}
        _refuse_findings(request, findings, bad)
        _refuse_bad(request, bad)
        if request.finder:
            request.finder.confirm()
        plans = [_plan(request, split, found) for split, found in surveyed.items()]
        return _write_and_publish(request, plans, surveyed, findings, claim)


def _passed_over(request: Request) -> list[Finding]:
    """Files that are in no pair, though they look as if they should be."""
    fix = "give them names like those of the others, or leave them out there"
    return [
        # Where the source lies is nothing that the prepared set depends on.
        Finding("warning", "passed-over", (split,), line.replace(f"{request.source}/", ""), fix)
        for split, pairs in request.pairs.items()
        for line in request.dataset.unused(request.source, split, pairs)
    ]


def _gravity(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)


def count_findings(manifests: Mapping[str, Manifest]) -> dict[str, int]:
    """How many findings of each severity there are; one that is about several splits counts once."""
    told = {(each["severity"], each["message"]) for manifest in manifests.values() for each in manifest.findings}
    return {severity: sum(one == severity for one, _ in told) for severity in SEVERITIES}


def _line(finding: Finding) -> str:
    fix = f" → {finding.fix}" if finding.fix else ""
    return f"{finding.severity} ({', '.join(finding.splits)}): {finding.message}{fix}"


def _refuse_findings(request: Request, findings: Sequence[Finding], bad: Mapping[str, Sequence[Bad]]) -> None:
    """Raise UserError for the doctor's errors, and if it should be strict, for its warnings."""
    serious = ("error", "warning") if request.options.strict else ("error",)
    refused = [finding for finding in findings if finding.severity in serious]
    if not refused:
        return
    files = _list_bad(request, {split: pairs for split, pairs in bad.items() if pairs})
    first = "; ".join(f"{finding.message} → {finding.fix}" for finding in refused[:_NAMED_IN_ERROR])
    more = f"; and {len(refused) - _NAMED_IN_ERROR} more, see above" if len(refused) > _NAMED_IN_ERROR else ""
    listed = f"; bad pairs are listed in {', '.join(files)}" if files else ""
    strictly = " (as --strict asks)" if all(finding.severity == "warning" for finding in refused) else ""
    raise UserError(f"{request.dataset.name} is not prepared as it is{strictly}: {first}{more}{listed}")


def _refuse_bad(request: Request, bad: Mapping[str, Sequence[Bad]]) -> None:
    """Raise UserError, having listed all bad pairs, unless they may be skipped and leave something in each split."""
    skip = request.options.skip_bad
    refused = {
        split: pairs for split, pairs in bad.items() if pairs and (not skip or len(pairs) == len(request.pairs[split]))
    }
    if not refused:
        return
    files = _list_bad(request, refused)
    all_bad = [each for pairs in refused.values() for each in pairs]
    first = "; ".join(f"{each.id}: {each.reason}" for each in all_bad[:_NAMED_IN_ERROR])
    more = "; …" if len(all_bad) > _NAMED_IN_ERROR else ""
    total = sum(len(request.pairs[split]) for split in refused)
    good = [split for split in bad if split not in refused]
    other = f"; or leave out what is bad by --splits {' '.join(good)}" if good else ""
    raise UserError(
        f"{len(all_bad)} of {total} pairs of {request.dataset.name} ({', '.join(refused)}) are bad ({first}{more}): "
        + ("fix them" if skip else "fix them or give --skip-bad to leave them out")
        + f"; all are listed in {', '.join(files)}{other}"
    )


def _list_bad(request: Request, bad: Mapping[str, Sequence[Bad]]) -> list[str]:
    name = request.dataset.name
    return [
        str(publish.reject(request.output / split, name, len(request.pairs[split]), pairs))
        for split, pairs in bad.items()
    ]


def _plan(request: Request, split: str, found: Surveyed) -> SplitPlan:
    options, pairs = request.options, request.pairs[split]
    left_out = {each.id for each in found.facts.bad} | set(found.poor)
    if found.poor:
        few = f"fewer than {options.min_object_pixels} pixels of objects (--min-object-pixels)"
        print(f"{split}: {len(found.poor)} of {len(pairs)} images are left out: {few}", flush=True)
        if len(left_out) == len(pairs):
            raise UserError(f"no image of {request.dataset.name} ({split}) is left: all good ones have {few}; lower it")
    return plan(request.dataset, split, pairs, found.facts, found.weights, left_out, options)


def _write_and_publish(
    request: Request,
    plans: Sequence[SplitPlan],
    surveyed: Mapping[str, Surveyed],
    findings: Sequence[Finding],
    claim: Claim,
) -> dict[str, Manifest]:
    output = request.output
    old = {plan.split: publish.read_manifest(output / plan.split) for plan in plans}
    try:
        written = write.write(request, plans, claim.check)
        bad = {
            split: sorted([*surveyed[split].facts.bad, *found.bad], key=lambda each: each.id)
            for split, found in written.items()
        }
        _refuse_bad(request, bad)
        manifests = {
            split: _manifest(request, found, bad[split], len(surveyed[split].poor), findings)
            for split, found in written.items()
        }
        claim.check()
        for split, manifest in manifests.items():
            publish.publish(output / split, manifest)
    except (KeyboardInterrupt, JobError):
        say(f"what is written in {output} stays: the same command goes on from there")
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            for each in plans:
                publish.withdraw(output / each.split, each.folder, old[each.split])
        raise
    for split, manifest in manifests.items():
        publish.tidy(output / split, manifest, old[split])
    return manifests


def _manifest(request: Request, found: Written, bad: list[Bad], dropped: int, findings: Sequence[Finding]) -> Manifest:
    told = [asdict(finding) for finding in findings if found.split in finding.splits]
    return Manifest(
        reader=request.dataset.name,
        split=found.split,
        classes=request.dataset.table,
        pixels=found.pixels.tolist(),
        shards=found.shards,
        bad=bad,
        options=request.options.of_content(),
        dropped=dropped,
        changed=dict(sorted(found.changed.items())),
        findings=[{name: each[name] for name in ("severity", "code", "message", "fix")} for each in told],
    )
