"""Labels that do not lie on their images: of another size, turned, shifted."""

from collections.abc import Iterator

from deeplab_ray.datasets.doctor.case import Case, Finding
from deeplab_ray.datasets.facts import SignName

# Among labels drawn by hand such offsets, in units of what can be told, are common.
_BY_HAND = 3
# A set is shifted if so many labels were compared, and half of them agree.
_FEW = 4
_ENOUGH = 16


def check_places(case: Case) -> Iterator[Finding]:
    """What the labels' sizes tell, and where they lie on the images that they were laid over."""
    yield from _check_exif(case)
    yield from _check_sizes(case)
    yield from _check_offsets(case)


def _check_exif(case: Case) -> Iterator[Finding]:
    turned, splits = case.signed("turned")
    count = turned.images + case.whole.sign("left as stored").images
    some_fit = case.whole.sign("fits").images
    ignore = "draw them on the upright pictures" if some_fit else "give --exif ignore"
    found = False
    by_size: tuple[tuple[SignName, str, str, str], ...] = (
        ("not upright", "labels-not-upright", "as the files store them and not as their EXIF data turn them", ignore),
        ("not stored", "labels-upright", "as their EXIF data turn them, with --exif ignore", "leave out --exif ignore"),
    )
    for name, code, how, fix in by_size:
        sign, where = case.signed(name)
        if sign.images:
            found = True
            message = f"{case.of(sign.images, 'fit')} their images {how}, such as {sign.example} ({sign.detail})"
            yield Finding(case.severity(sign.images), code, where, message, case.leave_out(sign.images, fix))
    by_outlines: tuple[tuple[SignName, str, str, str], ...] = (
        ("aligned stored", "labels-not-upright", "as the files store them", ignore),
        ("aligned upright", "labels-upright", "as their EXIF data turn them", "leave out --exif ignore"),
    )
    for name, code, how, fix in by_outlines:
        sign, where = case.signed(name)
        # Those that fit by their size are told above, and the fix is the same.
        if sign.images and not found:
            found = True
            message = (
                f"of {count} images that EXIF data turn or mirror, {sign.images} have labels with the outlines "
                f"of the pictures {how}, such as {sign.example}"
            )
            yield Finding("error", code, where, message, fix)
    if turned.images and not found:
        yield Finding(
            "note",
            "exif",
            splits,
            f"{turned.images} of {len(case.whole.ids)} images are turned or mirrored by their EXIF data, such as "
            f"{turned.example}: labels must have been drawn on the upright picture",
            "give --exif ignore if they were drawn on the pictures as the files store them",
        )


def _check_sizes(case: Case) -> Iterator[Finding]:
    for how, sign in case.whole.misfits.items():
        verb, rest = how.split(" ", 1)
        if how.startswith("are turned"):
            fix = "turn the labels as their images are"
        elif "times" in how or "1/" in how:
            fix = "scale the labels to the size of their images (nearest neighbour)"
        else:
            fix = "save the labels in the size of their images"
        yield Finding(
            case.severity(sign.images),
            "label-size",
            tuple(split for split, facts in case.facts.items() if how in facts.misfits),
            f"{case.of(sign.images, verb)} {rest}, such as {sign.example} ({sign.detail})",
            case.leave_out(sign.images, fix),
        )


def _check_offsets(case: Case) -> Iterator[Finding]:
    compared, splits = case.signed("compared")
    offsets = case.whole.offsets
    if not offsets:
        if compared.images >= _ENOUGH:
            yield Finding(
                "note",
                "no-outlines",
                splits,
                f"none of {compared.images} labels that were compared follows outlines of its image, such as "
                f"{compared.example}",
                "look at some by jobs/inspect.py: they may belong to other images, or lie far off",
            )
        return
    (right, down, accuracy), _ = offsets.most_common(1)[0]
    close = sum(n for (x, y, a), n in offsets.items() if max(abs(x - right), abs(y - down)) <= max(a, accuracy))
    total = offsets.total()
    if max(abs(right), abs(down)) >= _BY_HAND * accuracy and total >= _FEW and 2 * close > total:
        sideways = f"{abs(right)} pixels too far {'right' if right > 0 else 'left'}"
        along = f"{abs(down)} too far {'down' if down > 0 else 'up'}"
        yield Finding(
            "warning",
            "labels-shifted",
            splits,
            f"{close} of {total} labels whose outlines can be told from their images lie {sideways} and {along}, "
            f"within {accuracy}, such as {case.whole.sign('aligned').example}",
            f"move the labels by {-right} pixels to the right and {-down} down",
        )
