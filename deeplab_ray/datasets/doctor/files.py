"""Label files that hold no labels, or not as the dataset keeps them."""

from collections.abc import Iterator

from deeplab_ray.datasets.doctor.case import Case, Finding, percent
from deeplab_ray.datasets.formats import takes_nearest


def check_kinds(case: Case) -> Iterator[Finding]:
    """Photographs, JPEGs, smoothed borders and pictures of colours, where numbers or a few colours are expected."""
    sign, splits = case.signed("swapped")
    if sign.images:
        yield Finding(
            case.severity(sign.images),
            "swapped",
            splits,
            f"images and labels are swapped: {case.of(sign.images, 'look')} like photographs and their images like "
            f"labels, such as {sign.example}",
            "swap --images and --labels" if case.own else "give the folders of images and labels each other's names",
        )
    sign, splits = case.signed("photo")
    # Where most are JPEGs, a few may be so blurred that they look like photographs.
    most_are_lossy = case.severity(case.signed("lossy")[0].images) == "error" != case.severity(sign.images)
    if sign.images and not most_are_lossy:
        yield Finding(
            case.severity(sign.images),
            "photo-labels",
            splits,
            f"{case.of(sign.images, 'look')} like photographs, with up to {sign.most} different values and no even "
            f"areas, such as {sign.example}",
            case.leave_out(
                sign.images,
                "give --labels the folder of the masks" if case.own else "put the labels where the photographs lie",
            ),
        )
    sign, splits = case.signed("lossy")
    if sign.images and not takes_nearest(case.dataset.labels):
        yield Finding(
            case.severity(sign.images),
            "lossy-labels",
            splits,
            f"{case.of(sign.images, 'are')} JPEGs, which do not keep the values that were saved: up to {sign.most} "
            f"different ones in a label, for {len(case.dataset.classes)} classes, such as {sign.example}",
            case.leave_out(
                sign.images,
                "give --snap-colours, or save the labels as PNG from what the JPEGs were made of"
                if case.own and case.whole.coloured
                else "save the labels as PNG from what the JPEGs were made of",
            ),
        )
    yield from _check_borders(case)
    yield from _check_unread(case)


def _check_borders(case: Case) -> Iterator[Finding]:
    pixels = case.whole.pixels.total() + case.whole.snapped.total()
    snaps = takes_nearest(case.dataset.labels)
    sign, splits = case.signed("soft")
    if sign.images and not snaps:
        yield Finding(
            case.severity(sign.images),
            "soft-borders",
            splits,
            f"{case.of(sign.images, 'have')} smoothed borders, {sign.pixels} pixels "
            f"({percent(sign.pixels, pixels + sign.pixels)}) of up to {sign.most} values that mean nothing, "
            f"such as {sign.example}",
            case.leave_out(
                sign.images,
                "give --snap-colours"
                if case.own and case.whole.coloured
                else "save or scale the labels without smoothing (nearest neighbour)",
            ),
        )
    # Where classes were found by looking, no label has been decoded yet.
    for name in ("snapped", "soft", "lossy"):
        sign, splits = case.signed(name)
        if sign.images and (snaps or name == "snapped"):
            whole = pixels if name == "snapped" else pixels + sign.pixels
            yield Finding(
                "note",
                "snapped",
                splits,
                f"{case.of(sign.images, 'have')} {sign.pixels} pixels ({percent(sign.pixels, whole)}) that get the "
                f"class of the nearest colour, such as {sign.example}",
                "",
            )


def _check_unread(case: Case) -> Iterator[Finding]:
    for kind, sign in case.whole.unread.items():
        mode = kind.split(" of mode ")[-1]
        if mode.endswith("equal channels"):
            fix = "save one of their three channels as an 8-bit PNG"
        elif mode.startswith(("RGB", "CMYK")) and not case.own:
            fix = f"take the label files of {case.dataset.name} that hold numbers, not those for people to look at"
        else:
            fix = "save them as 8-bit PNGs of one channel"
        yield Finding(
            case.severity(sign.images),
            "label-kind",
            tuple(split for split, facts in case.facts.items() if kind in facts.unread),
            f"{case.of(sign.images, 'are')} {kind}, which is not how the labels of {case.dataset.name} are kept, "
            f"such as {sign.example}",
            case.leave_out(sign.images, fix),
        )
