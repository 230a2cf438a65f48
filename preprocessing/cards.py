"""What is written down about a dataset: its card, and the cases that the card finds in a folder.

A card is declarative. One file in `preprocessing/datasets/` holds one `CARD` and one
`cases(root) -> Iterator[RawCase]`, nearly always `return find_cases(CARD, root)` of
`preprocessing.pairing`. A card's name is its folder's name in the mirror.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from infra.errors import UsageError
from preprocessing.rules import (
    ABOUT_MANY,
    RULES,
    Binary,
    ByChannel,
    ByColour,
    ByFile,
    ByValue,
    Coco,
    Contours,
    InstanceIds,
    LabelRule,
    Outline,
    Polygons,
    RunLengths,
    Segments,
    Sprites,
    concepts_of,
)

__all__ = [
    "ABOUT_MANY", "RULES", "Answer", "Binary", "ByChannel", "ByColour", "ByFile", "ByValue", "Cases", "Coco",
    "Contours", "DatasetCard", "InstanceIds", "Instances", "Intensity", "LabelRule", "Layout", "Licence", "Official",
    "Outline", "Polygons", "RawCase", "RunLengths", "Segments", "SplitHint", "Sprites", "Tiles", "all_cards",
    "card_for", "cases_of", "concepts_of", "load_card",
]  # fmt: skip

Answer = Literal["yes", "no", "unknown"]
Instances = Literal["whole", "components", "files", "values"]
SplitHint = Literal["", "train", "val", "test", "development"]


@dataclass(frozen=True)
class Licence:
    """Under what terms the data may be used. `spdx` is empty where the terms have no SPDX name."""

    terms: str
    spdx: str = ""
    redistribution: Answer = "unknown"
    commercial: Answer = "unknown"


@dataclass(frozen=True)
class Official:
    """An address that needs no login; `bytes` 0 and `sha256` None where none is published.

    `root` is the folder inside the archive that becomes the dataset's root; empty: the archive's top.
    """

    url: str
    sha256: str | None
    bytes: int
    unpack: Literal["zip", "tar", "tar.gz", "none"]
    root: str = ""


@dataclass(frozen=True)
class Intensity:
    """How raw intensities become 8 bits.

    `as_is`: 8-bit images are kept. `window`: `limits` (for CT in HU) map to 0 and 255; three `windows`
    instead of `limits` become red, green and blue. `percentile`: the two percentiles `limits` of the voxels
    above the minimum of the case map to 0 and 255. `voi`: what the DICOM file itself says (VOI LUT or window),
    and where it says nothing, the percentiles.
    """

    rule: Literal["as_is", "window", "percentile", "voi"] = "as_is"
    limits: tuple[float, float] = (0.5, 99.5)
    windows: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """UsageError for windows that make no picture."""
        rising = all(low < high for low, high in self.windows)
        if self.windows and (self.rule != "window" or len(self.windows) != 3 or not rising):
            msg = f"Intensity.windows needs the rule window and three pairs low < high, found {self.windows}"
            raise UsageError(msg)


@dataclass(frozen=True)
class Tiles:
    """Cut a large or whole-slide picture into tiles of `size_px` at one level of its pyramid.

    `level` 0 is the finest; with `mpp` (micrometres a pixel) the level nearest to it is taken, which must
    lie within a fifth of it. Tiles at the right and lower edge are smaller. A tile whose values differ by
    at most `blank_range` (8 bits) is glass or padding: it is counted and left out; -1 keeps every tile.
    """

    size_px: int = 1024
    level: int = 0
    mpp: float | None = None
    blank_range: int = -1

    def __post_init__(self) -> None:
        if self.size_px < 16 or self.level < 0 or (self.mpp is not None and self.mpp <= 0):
            msg = f"tiles need a size of 16 pixels or more, a level from 0, an mpp above 0; found {self}"
            raise UsageError(msg)


@dataclass(frozen=True)
class Layout:
    """Where files lie: regular expressions for whole paths relative to the dataset's root, `/` between folders.

    Files with equal `(?P<case>…)` make one case: several images are the slices of one DICOM series,
    several labels are the parts of one truth. `(?P<group>…)` is the leakage unit and becomes part of the
    case's name. `(?P<split>…)` is looked up in the card's `official_split`; `(?P<part>…)` of a label says
    which structure the file holds (`ByFile`, `Polygons`); `(?P<set>…)` says which images a `Coco` file is
    about. An empty `label` means that this layout brings images without labels, or, with `label_key`, that
    image and label are in one file.

    Arrays (NPY, NPZ, HDF5, MAT) and multi-page TIFF:

    - `image_key`, `label_key`: the variable, `a/b` for HDF5 groups; not needed where a file has one.
      `instance_key`: a variable whose values number the instances of `label_key` (`instances="values"`).
    - `axes`: what the axes of the image array are, in order: `yx`, `yxc` (colour or grey), `zyx` (a volume),
      `n` for the axis that counts images; also `xy` and the like, where an array is stored transposed.
      Empty: by shape. `label_axes`: the same for the label; empty: the image's, without its channels, with a
      last `c` under `ByChannel`. A TIFF or GIF of several pages is a volume with `axes="zyx"`.
    - `stacked`: one file holds many images along `n` (the first axis unless `axes` says otherwise, or the
      pages of a TIFF or GIF); each is a case, `<case>_00000` and on.
    - `spacing_mm_zyx`: spacing of a volume whose files do not say it; `geometry_keys`: variables that do, of
      `spacing` (mm), `origin` (mm), `direction` (9 cosines), in SimpleITK's order (x, y, z).
      With neither a volume has no spacing, and is cut across its first axis.

    `tiles`: one sample a tile; the case stays the whole picture.

    `each_image`: where a case has several images that are not the slices of one series (the sequences of an MR
    study), each of them is a case with the same labels, in the group of the case.

    `beside` are files that a reader opens by itself (the voxels of a detached header): they count as files of
    the case, so that a change of them is seen.

    `(?P<within>…)`, where it is there, is put before the case's name: a folder above, with other folders
    between. `modality` and `intensity` are the card's, unless a folder of several modalities says another.
    """

    image: str
    label: str = ""
    readings: Mapping[str, str] = field(default_factory=dict)  # other annotators: name -> expression
    labels: LabelRule | None = None  # overrides the card's, where an archive codes labels in another way
    instances: Instances | None = None
    image_key: str = ""
    label_key: str = ""
    instance_key: str = ""
    axes: str = ""
    label_axes: str = ""
    stacked: bool = False
    each_image: bool = False
    spacing_mm_zyx: tuple[float, float, float] | None = None
    geometry_keys: Mapping[str, str] = field(default_factory=dict)
    tiles: Tiles | None = None
    beside: str = ""
    modality: str = ""
    intensity: Intensity | None = None

    def __post_init__(self) -> None:
        for name in ("axes", "label_axes"):
            axes: str = getattr(self, name)
            if axes and (not {"y", "x"} <= set(axes) <= set("nzyxc") or len(set(axes)) != len(axes)):
                msg = f"{name} are letters of n, z, y, x, c, each once, with y and x; found {axes!r}"
                raise UsageError(msg)
        if unknown := set(self.geometry_keys) - {"spacing", "origin", "direction"}:
            msg = f"geometry_keys has spacing, origin, direction; found {', '.join(sorted(unknown))}"
            raise UsageError(msg)


@dataclass(frozen=True)
class DatasetCard:
    """All that is declared about one dataset. Sizes are in files, colours in RGB, windows in HU."""

    name: str
    title: str
    modality: str
    licence: Licence
    citation: str
    homepage: str
    layout_checked: str  # where the layout was looked up
    layouts: tuple[Layout, ...]
    labels: LabelRule
    intensity: Intensity = Intensity()
    instances: Instances = "whole"
    searched: tuple[str, ...] = ()  # concepts looked for in every image: not marked means absent
    annotator: str = ""  # who drew the truth
    group: str = ""  # expression on the case id; group 1 is the leakage unit; empty: every case its own
    official_split: Mapping[str, SplitHint] = field(default_factory=dict)
    not_data: Mapping[str, str] = field(default_factory=dict)  # expression for a path -> why it is no data
    official: Official | None = None
    doi: str = ""
    family: str = ""  # datasets that share images share a family, so that a group has one split in all of them
    public: bool = True  # False: case ids and file names are pseudonyms in everything that is written
    # Volumes: resample to this spacing (0 keeps an axis), slice across these axes, take this frame of a 4D file.
    spacing_mm_zyx: tuple[float, float, float] | None = None  # of the harmonized axes; None: kept as it is
    axes: tuple[Literal["z", "y", "x"], ...] = ()  # empty: the axis of coarsest spacing alone
    frame: int | None = None  # counted from 0; None: a file of several frames is refused
    # Volumes: `own` puts masks of another grid onto the image's, where they cover it; `image`: they must have its grid.
    label_grid: Literal["image", "own"] = "image"
    evaluation_only: bool = False  # an external test set: training on it is an error
    unions: tuple[str, ...] = ()  # concepts of the ontology that are made of this card's: see preprocessing.ontology
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # concept -> words beside the ontology's

    @property
    def domain(self) -> str:
        """The name under which groups are hashed."""
        return self.family or self.name

    @property
    def concepts(self) -> tuple[str, ...]:
        """Every concept that the card's label rules can give, and the unions made of them, sorted."""
        rules = [self.labels, *(layout.labels for layout in self.layouts if layout.labels is not None)]
        return tuple(sorted({*self.unions, *(concept for rule in rules for concept in concepts_of(rule))}))

    def resolved(self) -> dict[str, Any]:
        """The card as JSON-ready values, with the kind of each label rule named."""
        return {**_with_kinds(self), "concepts": list(self.concepts)}


@dataclass(frozen=True)
class RawCase:
    """One image or volume with its truth, as files relative to the dataset's root (posix).

    Without `images` or without `labels` the case is an orphan, which the build quarantines.
    """

    case_id: str
    group: str
    images: tuple[str, ...]
    labels: tuple[str, ...]
    readings: tuple[tuple[str, tuple[str, ...]], ...] = ()
    split: SplitHint = ""
    rule: LabelRule | None = None
    instances: Instances | None = None
    layout: Layout | None = None  # the layout that found it, for what it says about arrays and tiles
    # label file -> its `(?P<part>…)` in lower case, where it has one; of a COCO file the image's `file_name` in it
    parts: tuple[tuple[str, str], ...] = ()
    index: int | None = None  # which image of a stack
    beside: tuple[str, ...] = ()  # files that are read with the others: see `Layout.beside`

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of the case, in the order images, labels, readings, files beside them, without repeats."""
        listed = [*self.images, *self.labels, *(file for _, files in self.readings for file in files), *self.beside]
        return tuple(dict.fromkeys(listed))


Cases = Callable[[Path], Iterator[RawCase]]


def card_for(card: DatasetCard, case: RawCase) -> DatasetCard:
    """The card as one case sees it: with the modality and intensity rule of the layout that found the case."""
    layout = case.layout
    if layout is None or not (layout.modality or layout.intensity):
        return card
    return replace(card, modality=layout.modality or card.modality, intensity=layout.intensity or card.intensity)


@cache
def _modules() -> dict[str, Any]:
    import preprocessing.datasets as package

    found: dict[str, Any] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        if hasattr(module, "CARD"):
            if module.CARD.name in found:
                msg = f"two files in preprocessing/datasets describe {module.CARD.name}"
                raise UsageError(msg)
            found[module.CARD.name] = module
    return found


def all_cards(folder: Path | None = None) -> dict[str, DatasetCard]:
    """Every card of `preprocessing/datasets/`, and those that a workspace keeps as YAML in `folder`, by name."""
    from preprocessing.yaml_card import from_folder, yaml_cards

    own = {name: module.CARD for name, module in _modules().items()}
    return own | {name: from_folder(path) for name, path in yaml_cards(folder).items()}


def load_card(name: str, folder: Path | None = None) -> DatasetCard:
    """The card of a dataset, in any case of letters; UsageError names near matches otherwise.

    `folder` holds the YAML cards of a workspace; only the one that is asked for is read.
    """
    from preprocessing.yaml_card import from_folder, yaml_cards

    cards = {known.lower(): module.CARD for known, module in _modules().items()}
    files = {known.lower(): path for known, path in yaml_cards(folder).items()}
    wanted = name.lower()
    if wanted in cards and wanted in files:
        msg = f"{files[wanted]}: name: expected a name of its own, found that of a built-in card. Choose another name"
        raise UsageError(msg)
    if wanted in files:
        return from_folder(files[wanted])
    if wanted in cards:
        built_in: DatasetCard = cards[wanted]
        return built_in
    names = {**{key: card.name for key, card in cards.items()}, **{key: path.stem for key, path in files.items()}}
    near = difflib.get_close_matches(wanted, list(names), n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(names[item] for item in near)}? " if near else ""
    msg = f"no dataset is named {name!r}. {hint}Known: {', '.join(sorted(names.values()))}"
    raise UsageError(msg)


def cases_of(card: DatasetCard) -> Cases:
    """The function that finds this card's cases below a folder; for a card of no module, by rules and expressions."""
    module = _modules().get(card.name)
    if module is not None and card == module.CARD:
        function: Cases = module.cases
        return function
    if any(_by_header(card, layout) for layout in card.layouts):
        from preprocessing.readers.dicom import find_dicom_cases

        return lambda root: find_dicom_cases(card, root)
    from preprocessing.pairing import find_cases

    return lambda root: find_cases(card, root)


def _by_header(card: DatasetCard, layout: Layout) -> bool:
    """Whether DICOM headers say what belongs together: SEG or RTSTRUCT, and paths that do not name the case."""
    return isinstance(layout.labels or card.labels, Segments | Contours) and "(?P<case>" not in layout.image


def _with_kinds(value: Any) -> Any:
    if is_dataclass(value):
        plain = {item.name: _with_kinds(getattr(value, item.name)) for item in fields(value)}
        return {"kind": type(value).__name__, **plain} if isinstance(value, LabelRule) else plain
    if isinstance(value, Mapping):
        return {str(key): _with_kinds(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_with_kinds(item) for item in value]
    return value
