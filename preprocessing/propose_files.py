"""Labels that name their images inside: COCO files and DICOM objects, proposed as cards by what they say."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import CaseError
from preprocessing.propose_pairs import DATA
from preprocessing.readers import DECODER_ERRORS, is_dicom
from preprocessing.readers.dicom_file import read_header

_JSON_BYTES = 512 << 20
_HEADERS_READ = 400
_TAGS = ["Modality", "SegmentSequence", "StructureSetROISequence"]
_LABEL_KINDS = {"SEG": "Segments", "RTSTRUCT": "Contours"}


def coco(root: Path, files: list[str]) -> list[str] | None:
    """The lines of a card for the COCO files below `root`, or None where there is none."""
    about: dict[tuple[str, str], list[str]] = defaultdict(list)  # (folder of the images, ending) -> JSON files
    names: Counter[str] = Counter()
    for file in files:
        said = _coco_in(root / file) if file.lower().endswith(".json") else None
        if said is None:
            continue
        listed = {str(image["file_name"]).rpartition("/")[2] for image in said["images"]}
        places = Counter(
            (each.rpartition("/")[0], each.rpartition(".")[2])
            for each in files
            if DATA.search(each) and each.rpartition("/")[2] in listed
        )
        if places:  # names may start again in another folder: the nearest to the JSON is meant
            about[max(places, key=lambda place: (_common(place[0], file), places[place]))].append(file)
            names.update(str(category["name"]).lower() for category in said["categories"])
    if not about:
        return None
    shown = ["# COCO: labels name their images", "layouts:"]
    for (folder, ending), jsons in sorted(about.items()):
        shown.append(f"  - image: {quoted(_below(folder, [place for place, _ in about]) + '{case}.' + ending)}")
        shown.append(f"    label: {quoted(_any_of(jsons))}")
    shown += ["labels:", "  kind: Coco", "  names:"]
    shown += [f"    {quoted(name)}: TODO  # category of {count} file(s)" for name, count in sorted(names.items())]
    return [*shown, "instances: values  # every annotation is one object"]


def _below(folder: str, folders: list[str]) -> str:
    """A folder as the beginning of a pattern; where folders differ, the names of cases may start again."""
    parts = folder.split("/") if folder else []
    for at in range(len(parts)):
        if len({each.split("/")[at] if each.count("/") >= at else "" for each in folders}) > 1:
            parts[at] = f"{{within={parts[at]}}}"
            break
    return "".join(f"{part}/" for part in parts)


def _any_of(files: list[str]) -> str:
    """One pattern for a few files of one folder."""
    folder = files[0].rpartition("/")[0]
    stems = [file.rpartition("/")[2].removesuffix(".json") for file in files]
    plain = all(file.rpartition("/")[0] == folder for file in files) and not any("," in stem for stem in stems)
    if len(files) == 1 or not plain:
        return files[0]
    return (f"{folder}/" if folder else "") + _either(stems) + ".json"


def _coco_in(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _JSON_BYTES:
            return None
        said = json.loads(path.read_text(encoding="utf-8"))
        lists = all(isinstance(said[key], list) for key in ("images", "annotations", "categories"))
        named = all("file_name" in image for image in said["images"]) and all(
            "name" in each for each in said["categories"]
        )
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        return None
    return said if lists and named and said["images"] else None


def _common(folder: str, file: str) -> int:
    """How many folders two paths have in common from the top."""
    pairs = zip(folder.split("/"), file.split("/"), strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


@dataclass
class _Dicom:
    images: list[str] = field(default_factory=list)
    labels: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # SEG or RTSTRUCT -> files
    names: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    modalities: Counter[str] = field(default_factory=Counter)


def dicom(root: Path, files: list[str]) -> list[str] | None:
    """The lines of a card for DICOM series with SEG or RTSTRUCT below `root`, or None where there are none."""
    found = _Dicom()
    for file in _spread([each for each in files if is_dicom(root / each)]):
        try:
            header = read_header(root / file, _TAGS)
        except (CaseError, *DECODER_ERRORS):
            continue
        modality = str(header.get("Modality") or "")
        if modality not in _LABEL_KINDS:
            found.images.append(file)
            found.modalities[modality] += 1
            continue
        found.labels[modality].append(file)
        for item in header.get("SegmentSequence") or header.get("StructureSetROISequence") or []:
            found.names[modality][str(item.get("SegmentLabel") or item.get("ROIName") or "").strip().lower()] += 1
    if not found.images or not found.labels:
        return None
    return list(_dicom_lines(found))


def _dicom_lines(found: _Dicom) -> Iterator[str]:
    kind = max(found.labels, key=lambda each: len(found.labels[each]))
    yield f"modality: {found.modalities.most_common(1)[0][0] or 'TODO'}  # of the headers"
    told = _told_apart(found.images, found.labels[kind])
    yield "layouts:  # files are put together by the series that they name"
    if told:
        yield f"  - image: {quoted(told[0])}"
        yield f"    label: {quoted(told[1])}"
    else:
        yield f'  - image: "TODO"  # such as {found.images[0]}'
        yield f'    label: "TODO"  # such as {found.labels[kind][0]}; names alone do not tell them from the images'
    yield "labels:"
    yield f"  kind: {_LABEL_KINDS[kind]}"
    yield "  names:"
    for name, count in sorted(found.names[kind].items()):
        yield f"    {quoted(name)}: TODO  # in {count} file(s); or name it under ignore"
    if found.modalities.most_common(1)[0][0] == "CT":
        yield "intensity: {rule: window, limits: [-160, 240]}  # guess: soft tissue; choose your own"
    else:
        yield "intensity: {rule: percentile, limits: [0.5, 99.5]}"
    for other in sorted(set(found.labels) - {kind}):
        yield f"# {len(found.labels[other])} {other} file(s) too: a layout with labels of their own, or not_data"


def _spread(files: list[str]) -> list[str]:
    """At most `_HEADERS_READ` files, of every folder some."""
    folders: dict[str, list[str]] = defaultdict(list)
    for file in files:
        folders[file.rpartition("/")[0]].append(file)
    each = max(1, _HEADERS_READ // max(1, len(folders)))
    return [file for listed in folders.values() for file in [*listed[:each], *listed[-1:]]][: 4 * _HEADERS_READ]


def _told_apart(images: list[str], labels: list[str]) -> tuple[str, str] | None:
    """Patterns that take the images and not the labels: by folder, by ending, or by how names begin."""

    def folder(file: str) -> str:
        return file.rpartition("/")[0].rpartition("/")[2]

    def ending(file: str) -> str:
        return Path(file).suffix

    def beginning(file: str) -> str:
        start = re.match(r"[A-Za-z]+", file.rpartition("/")[2])
        return start.group() if start else ""

    for part, shape in ((folder, "**/{}/*"), (ending, "**/*{}"), (beginning, "**/{}*")):
        ours, theirs = sorted({part(file) for file in images}), sorted({part(file) for file in labels})
        both = [*ours, *theirs]
        if not set(ours) & set(theirs) and all(re.fullmatch(r"\.?[\w .-]+", each) for each in both) and len(both) <= 12:
            return shape.format(_either(ours)), shape.format(_either(theirs))
    return None


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else "{" + ",".join(words) + "}"


def quoted(text: str) -> str:
    """A text as YAML in single quotes."""
    return "'" + text.replace("'", "''") + "'"
