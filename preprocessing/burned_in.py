"""Is there writing in the pixels? Flags for a person to look at. Finding nothing never means that a picture is clean.

Three signs, each enough: what the file says (BurnedInAnnotation), what kind of object it is (secondary
captures and ultrasound carry the machine's screen), and a look at the pixels: letters are strokes of nearly
one brightness, as high as their neighbours, in a row on one line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SCREEN_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.7",  # secondary capture, and its multi-frame kinds below it
    "1.2.840.10008.5.1.4.1.1.6.1",  # ultrasound
    "1.2.840.10008.5.1.4.1.1.3.1",  # ultrasound, multi-frame
    "1.2.840.10008.5.1.4.1.1.12",  # X-ray angiography and fluoroscopy
    "1.2.840.10008.5.1.4.1.1.77.1",  # photographs, endoscopy
)
_LETTERS = 4  # so many in a row are a word
_CONTRAST = 70  # grey levels by which a stroke stands out
_LOW, _HIGH = 5, 64  # pixels: height of a letter
_STROKE = 9  # pixels: what is broader is no stroke


def look(header: Any, pictures: Iterable[NDArray[np.uint8]]) -> list[str]:
    """The signs of writing: of "tag", "class", "pixels" those that apply. `header` is None for other than DICOM.

    `pictures` are (height, width) or (height, width, 3).
    """
    found = []
    said = str(header.get("BurnedInAnnotation") or "") if header is not None else ""
    if said == "YES":
        found.append("tag")
    kind = str(header.get("SOPClassUID") or "") if header is not None else ""
    if said != "NO" and any(kind == known or kind.startswith(f"{known}.") for known in _SCREEN_CLASSES):
        found.append("class")
    if any(has_writing(picture) for picture in pictures):
        found.append("pixels")
    return found


def has_writing(picture: NDArray[np.uint8]) -> bool:
    """Whether a row of at least four letter-like strokes is in a picture, bright on dark or dark on bright."""
    from scipy import ndimage  # a third of a second that only datasets with such pictures should pay

    channels = picture[..., None] if picture.ndim == 2 else picture
    for grey in (channels.max(axis=2), 255 - channels.min(axis=2)):
        # what an opening takes away is brighter than its surroundings and thinner than the opening
        strokes = grey.astype(np.int16) - ndimage.grey_opening(grey, size=(_STROKE, _STROKE)) > _CONTRAST
        numbered, _ = ndimage.label(strokes, structure=np.ones((3, 3), dtype=bool))
        boxes = [
            (place[0].start, place[0].stop, place[1].start, place[1].stop)
            for index, place in enumerate(ndimage.find_objects(numbered), start=1)
            if place is not None and _is_letter(numbered[place] == index, grey[place])
        ]
        if _longest_row(boxes) >= _LETTERS:
            return True
    return False


def _is_letter(mask: NDArray[np.bool_], grey: NDArray[np.uint8]) -> bool:
    """A component of a letter's size and of nearly one brightness, that fills neither little nor all of its box."""
    height, width = mask.shape
    if not (_LOW <= height <= _HIGH and width <= 3 * height):
        return False
    share = float(mask.mean())
    if not 0.15 <= share <= 0.95 and width > 3:
        return False
    inside = grey[mask].astype(np.float32)
    return float(np.mean(inside > inside.max() - 48)) > 0.6


def _longest_row(boxes: list[tuple[int, int, int, int]]) -> int:
    """The most boxes (top, bottom, left, right) that follow each other on one line, near and alike in height."""
    longest = 0
    rows: list[list[tuple[int, int, int, int]]] = []
    for box in sorted(boxes, key=lambda each: each[2]):
        for row in rows:
            if _follows(row[-1], box):
                row.append(box)
                break
        else:
            rows.append([box])
    for row in rows:
        longest = max(longest, len(row))
    return longest


def _follows(left: tuple[int, int, int, int], right: tuple[int, int, int, int]) -> bool:
    heights = left[1] - left[0], right[1] - right[0]
    high = max(heights)
    return (
        abs(left[1] - right[1]) <= 0.25 * high + 1
        and high <= 1.6 * min(heights) + 1
        and -1 <= right[2] - left[3] <= 0.9 * high
    )
