"""The label rules of a card: what in a label file is which concept. Declarative; `harmonize/labels.py` applies them.

Every rule is a frozen dataclass of plain values, so that a card in YAML can say it: `kind` is the
class name. What a rule does not name is an unknown label, and an unknown label refuses its case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ByValue:
    """A label image whose grey values are classes; a value further than `tolerance` from all is unknown.

    `ignore`: values that are no class of interest (a frame around the picture, "void"): background.
    """

    values: Mapping[int, str]
    tolerance: int = 0
    background: int = 0
    ignore: tuple[int, ...] = ()


@dataclass(frozen=True)
class ByColour:
    """A colour label image: (red, green, blue) -> concept; black is background, and so are the colours to `ignore`."""

    colours: tuple[tuple[tuple[int, int, int], str], ...]
    tolerance: int = 0
    ignore: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Binary:
    """One concept, brighter than `threshold` (for 1-bit masks: true), or darker where `inverted`.

    `threshold` counts in 8 bits. At most `max_between` of the pixels may lie in the middle half of the
    grey range: JPEG noise lies near the ends, a photograph does not.
    """

    concept: str
    threshold: int = 127
    inverted: bool = False
    max_between: float = 0.02


@dataclass(frozen=True)
class Outline:
    """One concept, drawn as a closed line brighter than `threshold` (8 bits) that is to be filled (HC18).

    A line that the edge of the picture cuts is closed along that edge. One that encloses nothing is refused.
    """

    concept: str
    threshold: int = 127


@dataclass(frozen=True)
class ByFile:
    """One binary file a structure: the label expression's `(?P<part>…)`, in lower case, is looked up in `names`.

    Pictures: brighter than `threshold` of 8 bits, or a picture of 0 and 1. Volumes and arrays: not 0. A
    part in neither list is unknown. With `instances="files"` every file is one instance.
    """

    names: Mapping[str, str]
    threshold: int = 127
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class ByChannel:
    """A label array with one channel a concept, its channel axis as the layout's `label_axes` says (default: last).

    Not 0 is marked; `instance_ids`: the values of a channel number its instances (use `instances="values"`).
    A channel in neither list must be empty. Channels count from 0.
    """

    channels: Mapping[int, str]
    instance_ids: bool = False
    ignore: tuple[int, ...] = ()


@dataclass(frozen=True)
class Polygons:
    """Outlines as coordinates in pixels: LabelMe JSON, ImageScope or ASAP XML, or text with `x y` a line.

    Which it is, the content says. `names`: label in lower case -> concept. Where a file names no class,
    the label is its `(?P<part>…)`, else the empty string: `names={"": "cell nucleus"}`. With
    `instances="values"` every polygon is one instance.
    """

    names: Mapping[str, str]
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class Coco:
    """A COCO JSON for many images: category name in lower case -> concept; polygons and run lengths.

    An image belongs to the JSON whose expression has the same `(?P<set>…)`, by the end of its path. With
    `instances="values"` every annotation is one instance, a crowd too.
    """

    names: Mapping[str, str]
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sprites:
    """Masks cut out to their boxes, and a CSV that says of each which picture, which class and which place.

    The layout's label expression names the table; a picture belongs to it as to a `Coco` file. `names`: class
    in lower case -> concept. The columns: `image` (file name of the picture), `mask` (path below the table's
    folder), `label` (the class), `left` and `top` (pixels). Marked is what is neither black nor transparent.
    With `instances="values"` every sprite is one instance.
    """

    names: Mapping[str, str]
    ignore: tuple[str, ...] = ()
    image: str = "image"
    mask: str = "mask"
    label: str = "class"
    left: str = "left"
    top: str = "top"


@dataclass(frozen=True)
class RunLengths:
    """Masks as run lengths in a CSV for many pictures: a row an object, `start length start length …` of marked pixels.

    The layout's label expression names the table; a picture belongs to it as to a `Coco` file, by the text of the
    column `image` and `ending` (tables often name pictures without theirs). `names`: text of the column `label` in
    lower case -> concept; without such a column every row is of the class "". A row whose runs are empty or -1
    says that there is nothing. `counting`: starts from the first pixel, which is 1 ("absolute", most of Kaggle), or
    from the end of the run before, 0 and on ("relative", SIIM-ACR). `order`: which pixels are neighbours, those
    below each other ("columns") or side by side ("rows"). With `instances="values"` every row is one instance.
    """

    names: Mapping[str, str]
    ignore: tuple[str, ...] = ()
    image: str = "ImageId"
    ending: str = ""
    runs: str = "EncodedPixels"
    label: str = ""
    counting: Literal["absolute", "relative"] = "absolute"
    order: Literal["columns", "rows"] = "columns"


@dataclass(frozen=True)
class Segments:
    """A DICOM-SEG: segment label in lower case -> concept. Labels in neither list are unknown.

    A fractional segment holds where its value is at least `threshold` of the largest possible.
    """

    names: Mapping[str, str]
    ignore: tuple[str, ...] = ()
    threshold: float = 0.5


@dataclass(frozen=True)
class Contours:
    """A DICOM RTSTRUCT: ROI name in lower case -> concept. Names in neither list are unknown.

    `partial`: contours on slices that the series lacks are left out; otherwise they refuse the case.
    """

    names: Mapping[str, str]
    ignore: tuple[str, ...] = ()
    partial: bool = False


@dataclass(frozen=True)
class InstanceIds:
    """A label image whose values are instance numbers of one concept, 0 is background."""

    concept: str


LabelRule = (
    ByValue | ByColour | Binary | Outline | ByFile | ByChannel | InstanceIds
    | Polygons | Coco | Sprites | RunLengths | Segments | Contours
)  # fmt: skip
ABOUT_MANY = (Coco, Sprites, RunLengths)  # a label file of these is about many images, and names them
RULES: dict[str, type] = {rule.__name__: rule for rule in LabelRule.__args__}


def concepts_of(rule: LabelRule) -> tuple[str, ...]:
    """The concepts that a label rule can give."""
    match rule:
        case ByValue():
            return tuple(rule.values.values())
        case ByColour():
            return tuple(concept for _, concept in rule.colours)
        case ByChannel():
            return tuple(rule.channels.values())
        case Segments() | Contours() | ByFile() | Polygons() | Coco() | Sprites() | RunLengths():
            return tuple(rule.names.values())
        case Binary() | InstanceIds() | Outline():
            return (rule.concept,)
