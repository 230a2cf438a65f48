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
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from infra.errors import UsageError

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

    `as_is`: 8-bit images are kept. `window`: `limits` (for CT in HU) map to 0 and 255. `percentile`:
    the two percentiles `limits` of the voxels above the minimum of the case map to 0 and 255.
    """

    rule: Literal["as_is", "window", "percentile"] = "as_is"
    limits: tuple[float, float] = (0.5, 99.5)


@dataclass(frozen=True)
class ByValue:
    """A label image whose grey values are classes; a value further than `tolerance` from all is unknown."""

    values: Mapping[int, str]
    tolerance: int = 0
    background: int = 0


@dataclass(frozen=True)
class ByColour:
    """A colour label image: (red, green, blue) -> concept; black is background."""

    colours: tuple[tuple[tuple[int, int, int], str], ...]
    tolerance: int = 0


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
class Segments:
    """A DICOM-SEG: segment label in lower case -> concept. Labels in neither list are unknown."""

    names: Mapping[str, str]
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class InstanceIds:
    """A label image whose values are instance numbers of one concept, 0 is background."""

    concept: str


LabelRule = ByValue | ByColour | Binary | Segments | InstanceIds


@dataclass(frozen=True)
class Layout:
    """Where files lie: regular expressions for whole paths relative to the dataset's root, `/` between folders.

    Files with equal `(?P<case>…)` make one case: several images are the slices of one DICOM series,
    several labels are the parts of one truth. `(?P<split>…)` is looked up in the card's
    `official_split`. An empty `label` means that this layout brings images without labels.
    """

    image: str
    label: str = ""
    readings: Mapping[str, str] = field(default_factory=dict)  # other annotators: name -> expression
    labels: LabelRule | None = None  # overrides the card's, where an archive codes labels in another way
    instances: Instances | None = None


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
    evaluation_only: bool = False  # an external test set: training on it is an error

    @property
    def domain(self) -> str:
        """The name under which groups are hashed."""
        return self.family or self.name

    @property
    def concepts(self) -> tuple[str, ...]:
        """Every concept that the card's label rules can give, sorted."""
        rules = [self.labels, *(layout.labels for layout in self.layouts if layout.labels is not None)]
        return tuple(sorted({concept for rule in rules for concept in concepts_of(rule)}))

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

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of the case, in the order images, labels, readings, without repeats."""
        listed = [*self.images, *self.labels, *(file for _, files in self.readings for file in files)]
        return tuple(dict.fromkeys(listed))


Cases = Callable[[Path], Iterator[RawCase]]


def concepts_of(rule: LabelRule) -> tuple[str, ...]:
    """The concepts that a label rule can give."""
    match rule:
        case ByValue():
            return tuple(rule.values.values())
        case ByColour():
            return tuple(concept for _, concept in rule.colours)
        case Segments():
            return tuple(rule.names.values())
        case Binary() | InstanceIds():
            return (rule.concept,)


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


def all_cards() -> dict[str, DatasetCard]:
    """Every card of `preprocessing/datasets/`, by name."""
    return {name: module.CARD for name, module in _modules().items()}


def load_card(name: str) -> DatasetCard:
    """The card of a dataset, in any case of letters; UsageError names near matches otherwise."""
    cards = all_cards()
    by_lower = {known.lower(): card for known, card in cards.items()}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(by_lower[item].name for item in near)}? " if near else ""
    msg = f"no dataset is named {name!r}. {hint}Known: {', '.join(sorted(cards))}"
    raise UsageError(msg)


def cases_of(card: DatasetCard) -> Cases:
    """The function that finds this card's cases below a folder; for a card of no file, its layouts alone."""
    from preprocessing.pairing import find_cases

    module = _modules().get(card.name)
    if module is not None and card == module.CARD:
        function: Cases = module.cases
        return function
    return lambda root: find_cases(card, root)


def _with_kinds(value: Any) -> Any:
    if isinstance(value, DatasetCard | Layout | Licence | Official | Intensity):
        return {name: _with_kinds(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, ByValue | ByColour | Binary | Segments | InstanceIds):
        plain = {key: _with_kinds(item) for key, item in asdict(value).items()}
        return {"kind": type(value).__name__, **plain}
    if isinstance(value, Mapping):
        return {str(key): _with_kinds(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_with_kinds(item) for item in value]
    return value
