"""Colours for classes that have none of their own: VOC's colour map, in which no two of 0..255 are alike."""

Colour = tuple[int, int, int]


def voc_colour(index: int) -> Colour:
    """RGB of 0..255: bits 0, 3, 6 of the index are red's highest bits, 1, 4, 7 green's, 2, 5, 8 blue's."""
    red, green, blue = (
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue
