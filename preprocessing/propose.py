"""Propose a card for a folder that nobody has described: guesses are said as guesses, the rest is marked TODO.

A proposal is a starting point for a person. What a structure is called, who may use the data and which
files are one patient cannot be seen in the files; a card with a TODO in a concept is refused by `check`.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.pairing import COMMON_NOT_DATA, clean_id, files_below
from preprocessing.patterns import translate
from preprocessing.propose_files import coco, dicom, quoted
from preprocessing.propose_labels import MOST_VALUES, Seen, clustered, is_numbered, look, looks_like, pixels_of
from preprocessing.propose_pairs import Pair, best_pair, with_sequences
from preprocessing.readers import kind_of

_LABELS_READ = 24
MODALITY = "modality: TODO  # such as ultrasound, endoscopy, fundus photography, histopathology"
LICENCE = "licence: {terms: TODO, redistribution: unknown, commercial: unknown}  # TODO: who may use it, for what"
SEARCHED = "searched: []  # TODO: concepts that every image was searched for; where unmarked they are then absent"
_TEXTS = {"csv": "a table", "tsv": "a table", "xls": "a table", "xlsx": "a table", "txt": "a text", "md": "a text",
          "pdf": "a text", "html": "a text", "json": "metadata that is not read", "xml": "metadata that is not read",
          "yaml": "metadata that is not read", "yml": "metadata that is not read"}  # fmt: skip


def propose(root: Path, name: str = "") -> str:
    """The text of a card for the files below `root`, of which a few dozen are read; DataError where it is missing."""
    files = [file for file in files_below(root) if not any(re.fullmatch(text, file) for text in COMMON_NOT_DATA)]
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "_", root.resolve().name).strip("._-") or "my-dataset"

    @cache
    def looks(file: str) -> str:
        return looks_like(pixels_of(root / file))

    said = coco(root, files) or dicom(root, files)
    pair = None if said else best_pair(files, looks)
    guessed = _paired(root, files, pair) if pair else _unpaired(files)
    body = [*_open(said), *said, SEARCHED] if said else [*guessed]
    return "\n".join([*_head(name, files, pair), *body, ""])


def _open(said: list[str]) -> Iterator[str]:
    """What labels that name their images do not say."""
    if not any(line.startswith("modality:") for line in said):
        yield MODALITY
    yield LICENCE


def _head(name: str, files: list[str], pair: Pair | None) -> Iterator[str]:
    yield f"# Proposed by `segfoundry data new-card` from {len(files)} files. Guesses say so; set what is marked TODO."
    if pair:
        yield f"# {len(pair.keys)} image(s) found a label of the same name."
    yield f"name: {name}"


def _unpaired(files: list[str]) -> Iterator[str]:
    endings = Counter(Path(file).suffix.lower() or "no ending" for file in files)
    said = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(6)) or "nothing"
    yield f"# No image was found with a label of the same name. Here are {said}."
    yield "# docs/bring-your-own-data.md has a card for each family: COCO, DICOM, arrays, polygons."
    yield "modality: TODO"
    yield "licence: {terms: TODO, redistribution: unknown, commercial: unknown}"
    yield "layouts:"
    yield '  - image: "TODO/{case}.png"'
    yield '    label: "TODO/{case}.png"'
    yield "labels: {kind: Binary, concept: TODO}"


def _paired(root: Path, files: list[str], pair: Pair) -> Iterator[str]:
    pair = _within(pair)
    image = pair.image.files[pair.keys[0]][0]
    is_volume = kind_of(image) == "volume"
    modality, intensity = _modality(root / image, is_volume)
    yield f"modality: {modality}"
    yield LICENCE
    yield "layouts:"
    pair, words = with_sequences(pair, files)
    yield f"  - image: {quoted(pair.image.text)}"
    yield f"    label: {quoted(pair.label.text)}"
    if words:
        yield f"    each_image: true  # guess: {len(words)} sequences of a patient, labelled alike; keep what you want"
    labels = [file for key in pair.keys for file in pair.label.files[key]]
    yield from _rule(root, files, pair, labels)
    if intensity:
        yield intensity
    yield SEARCHED
    yield from _group(pair)
    yield from _rest(files, pair)


def _within(pair: Pair) -> Pair:
    """With fewer than three folders as groups, they are parts of the dataset rather than patients."""
    if "{group}" not in pair.image.text or len({key.partition("/")[0] for key in pair.keys}) > 2:
        return pair
    image, label = (replace(one, text=one.text.replace("{group}", "{within}")) for one in (pair.image, pair.label))
    return Pair(image, label, pair.keys)


def _modality(image: Path, is_volume: bool) -> tuple[str, str]:
    pixels = pixels_of(image)
    if not is_volume:
        said = MODALITY.removeprefix("modality: ")
        deep = pixels is not None and pixels.dtype != np.uint8 and pixels.dtype != bool
        return said, "intensity: {rule: percentile, limits: [0.5, 99.5]}  # guess: more than 8 bits" if deep else ""
    if pixels is not None and float(pixels.min()) <= -800:
        return (
            "CT  # guess: values far below 0, as in Hounsfield units",
            "intensity: {rule: window, limits: [-160, 240]}  # guess: soft tissue; choose the window of your structure",
        )
    return "TODO  # such as MR, CT", "intensity: {rule: percentile, limits: [0.5, 99.5]}  # guess: no Hounsfield units"


def _rule(root: Path, files: list[str], pair: Pair, labels: list[str]) -> Iterator[str]:
    """The label rule, by the names of structures in file names or by what the label files hold."""
    step = max(1, len(labels) // _LABELS_READ)
    if "{part}" in pair.label.text:
        expression = re.compile(translate(pair.label.text).expression)
        parts = Counter(match["part"].lower() for file in labels if (match := expression.fullmatch(file)))
        yield f"# guess: one file a structure; {len(parts)} names were found"
        yield "labels:"
        yield "  kind: ByFile"
        yield "  names:"
        for part, count in sorted(parts.items()):
            yield f"    {quoted(part)}: TODO {re.sub(r'[-_ ]+', ' ', part)}  # in {count} case(s)"
        return
    seen = look(root / file for file in labels[::step])
    yield f"# what follows was seen in {seen.files} of {len(labels)} label files"
    names = _names_in_json(root, files)
    if not seen.files:
        yield "labels: {kind: Binary, concept: TODO}  # none of them could be read"
    elif seen.colours:
        yield from _colours(seen)
    elif is_numbered(seen):
        yield "labels: {kind: InstanceIds, concept: TODO}  # guess: values number the objects, each is one piece"
        yield "instances: values"
    elif set(seen.values) <= {0, 255}:
        share = seen.values.get(255, 0) / max(1, sum(seen.values.values()))
        noise = ", with grey noise of JPEG" if seen.noisy else ""
        yield f"labels: {{kind: Binary, concept: TODO}}  # black and white{noise}; {share:.0%} is white"
        if share > 0.5:
            yield "# most of it is white: add inverted: true to the rule where the structure is black"
        yield from _several(pair)
    else:
        yield from _values(seen, names)


def _colours(seen: Seen) -> Iterator[str]:
    tolerance = 0 if len(seen.colours) <= MOST_VALUES else 32
    yield "labels:"
    yield f"  kind: ByColour  # guess: {len(seen.colours)} colours, black is background"
    yield f"  tolerance: {tolerance}"
    yield "  colours:"
    for colour in clustered(seen.colours, tolerance)[:MOST_VALUES]:
        yield f"    '#{colour[0]:02x}{colour[1]:02x}{colour[2]:02x}': TODO  # {seen.colours[colour]} pixels"


def _values(seen: Seen, names: dict[int, str]) -> Iterator[str]:
    yield "labels:"
    yield "  kind: ByValue  # guess: each value is a structure, 0 is background"
    yield "  values:"
    marked = sum(count for value, count in seen.values.items() if value)
    rare = sorted(
        value for value, count in seen.values.items() if value and value not in names and count < marked / 500
    )
    for value in sorted(value for value in seen.values if value and value not in rare):
        known = names.get(value, "")
        said = f"{known}  # of dataset.json: check the wording, it is the prompt" if known else "TODO"
        count = f"{'; ' if known else '  # '}{seen.values[value]} pixels"
        yield f"    {value}: {said}{count}"
    if rare:
        yield f"  # rare values {', '.join(map(str, rare[:8]))}: noise? tolerance: 9 takes what is that near"
    for value in sorted(set(names) - set(seen.values)):
        yield f"    {value}: {names[value]}  # of dataset.json; in none of the files that were read"


def _several(pair: Pair) -> Iterator[str]:
    most = max(len(files) for files in pair.label.files.values())
    if most > 1:
        yield f"instances: files  # guess: up to {most} label files an image, each one object"


def _names_in_json(root: Path, files: list[str]) -> dict[int, str]:
    """Value -> name of a `dataset.json` in the way of the Decathlon or of nnU-Net."""
    found: dict[int, str] = {}
    for file in files:
        if file.rpartition("/")[2] == "dataset.json" and (root / file).stat().st_size < 16 << 20:
            try:
                listed: Any = json.loads((root / file).read_text(encoding="utf-8"))["labels"]
                pairs = [(key, value) for key, value in listed.items()]
                pairs = [(value, key) if isinstance(value, int) else (int(key), value) for key, value in pairs]
            except (ValueError, KeyError, TypeError, AttributeError, OSError):
                continue
            found |= {value: _concept(str(text)) for value, text in pairs if value and _concept(str(text))}
    return found


def _concept(text: str) -> str:
    return " ".join(re.sub(r"[^A-Za-z0-9 ]+", " ", text).lower().split())


def _group(pair: Pair) -> Iterator[str]:
    if "{group}" in pair.image.text:
        yield "# guess: a folder is a patient; all of a {group} goes to one split"
        return
    cases = [clean_id(key) for key in pair.keys]
    for pattern, expression in (("{group}_*", r"(.+)_[^_]*"), ("{group}-*", r"(.+)-[^-]*")):
        heads = Counter(match[1] for case in cases if (match := re.fullmatch(expression, case)))
        if sum(heads.values()) == len(cases) and 3 <= len(heads) <= 0.7 * len(cases):
            some = ", ".join(list(heads)[:3])
            yield f'group: "{pattern}"  # guess: {len(heads)} patients, such as {some}; it decides what may leak. Check'
            return
    yield '# TODO group: which part of a name is the patient, such as "{group}_*"? Without it every case is its own'


def _rest(files: list[str], pair: Pair) -> Iterator[str]:
    """Files that neither pattern takes: texts as no data, others named for the author."""
    expressions = [re.compile(translate(text).expression) for text in (pair.image.text, pair.label.text)]
    left = [file for file in files if not any(each.fullmatch(file) for each in expressions)]
    texts: dict[str, int] = defaultdict(int)
    others = []
    for file in left:
        ending = file.rpartition(".")[2]
        if ending.lower() in _TEXTS:
            texts[ending] += 1
        else:
            others.append(file)
    if texts:
        yield "not_data:"
        for ending, count in sorted(texts.items()):
            yield f'  "**/*.{ending}": {_TEXTS[ending.lower()]}  # guess: {count} file(s)'
    if others:
        yield f"# {len(others)} other file(s) are taken by neither pattern, such as"
        yield from (f"#   {file!r}" for file in others[:5])
        yield "# Add a layout for them, or name them under not_data with the reason"
