"""Which files of an unknown folder are images, and which are their labels: by names alone, told by `looks` of content.

A template is a pattern with the files that it takes, by key (what its fields say). An image template and a
label template belong together where they share keys.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from preprocessing.patterns import translate
from preprocessing.yaml_card import SPLIT_WORDS

DATA = re.compile(r"\.(?:nii|nii\.gz|nrrd|mha|mhd|png|jpe?g|bmp|tiff?|gif|pgm|ppm)$", re.IGNORECASE)
_LABEL_WORDS = re.compile(
    r"(?:^|[^a-z])(?:masks?|segs?|segmentations?|labels?(?:tr|ts)?|gts?|ground_?truths?|annos?|annotations?|manual|"
    r"contours?|rois?|truths?|lesions?)(?:[^a-z]|$)",
    re.IGNORECASE,
)
_MOST = 400  # files of a folder that are looked at: the rest are named alike
_WIDEST = 80  # templates that are compared with each other

Looks = Callable[[str], str]  # file -> "mask", "image" or "unknown"


@dataclass
class Template:
    """A pattern, and its files by key; several files a key where it has `*` or {part}."""

    text: str
    files: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def all_files(self) -> set[str]:
        """Every file that it takes."""
        return {file for files in self.files.values() for file in files}


@dataclass(frozen=True)
class Pair:
    """An image pattern, a label pattern, and the keys that both have."""

    image: Template
    label: Template
    keys: tuple[str, ...]


def best_pair(files: list[str], looks: Looks) -> Pair | None:
    """The pair of templates that explains most files with least left over; None where no two belong together."""
    made = [one for one in _templates(_few(files)).values() if len(one.files) >= 2 or len(files) <= 8]
    made.sort(key=lambda one: (-len(one.files), one.text))
    made = made[:_WIDEST]
    taken = {one.text: one.all_files for one in made}
    best: tuple[tuple[float, ...], Pair] | None = None
    for image in made:
        for label in made:
            if "{part}" in image.text or "*" in image.text or image is label or not _recurs(label):
                continue
            if not taken[label.text] or taken[label.text] >= taken[image.text]:
                continue
            overlap = taken[image.text] & taken[label.text]
            if overlap and translate(label.text.replace("*", "x")).literal <= translate(image.text).literal:
                continue  # both would take these files, and the image's pattern would win
            images = {key for key, each in image.files.items() if set(each) - taken[label.text]}
            keys = tuple(sorted(images & set(label.files)))
            if not keys:
                continue
            shown = [image.files[keys[0]][0], image.files[keys[-1]][0]]
            marked = [label.files[keys[0]][0], label.files[keys[-1]][0]]
            if any(looks(file) == "mask" for file in shown) or any(looks(file) == "image" for file in marked):
                continue
            score = _score(image, label, keys, len(images))
            if best is None or score > best[0]:
                best = (score, Pair(image, label, keys))
    return best[1] if best else None


def with_sequences(pair: Pair, files: list[str]) -> tuple[Pair, list[str]]:
    """The pair with an image pattern that takes the other sequences of a study too, and what tells them apart.

    `{case}_t1.nii.gz` becomes `{case}_{flair,t1,t2}.nii.gz` where most cases have them all and they are no labels.
    """
    ending = DATA.search(pair.image.text)
    stem = pair.image.text[: ending.start()] if ending else ""
    last = re.fullmatch(r"(.*\}[-_.])([A-Za-z0-9]+)", stem)
    if ending is None or last is None:
        return pair, []
    before, end = last[1], ending.group()
    expression = re.compile(translate(f"{before}{{sequence_:word}}{end}").expression)
    cases: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for file in set(files) - pair.label.all_files:
        if match := expression.fullmatch(file):
            named = match.groupdict()
            cases[named.pop("sequence_")].add(tuple(value or "" for value in named.values()))
    own = cases[last[2]]
    words = sorted(word for word, found in cases.items() if 2 * len(found & own) > len(own))
    if len(words) < 2:
        return pair, []
    image = Template(f"{before}{{{','.join(words)}}}{end}", pair.image.files)
    return Pair(image, pair.label, pair.keys), words


def _score(image: Template, label: Template, keys: tuple[str, ...], images: int) -> tuple[float, ...]:
    whole = len(keys) / images * len(keys) / len(label.files)
    named = bool(_LABEL_WORDS.search(label.text)) - bool(_LABEL_WORDS.search(image.text))
    explained = sum(len(label.files[key]) for key in keys) + len(keys)
    plain = -(image.text + label.text).count("{") - 2 * (image.text + label.text).count("*")
    return (round(whole * explained, 3), float(named), float(plain), -float(len(image.text + label.text)))


def _recurs(label: Template) -> bool:
    """Whether the names that {part} takes are names of structures: the same ones in case after case."""
    if "{part}" not in label.text:
        return True
    names = {file.rpartition("/")[2] for file in label.all_files}
    return len(names) > 1 and sum(map(len, label.files.values())) >= len(names) * max(2, len(label.files) // 4)


def _few(files: list[str]) -> list[str]:
    """Data files, at most `_MOST` of a folder and ending."""
    count: dict[tuple[str, str], int] = defaultdict(int)
    kept = []
    for file in files:
        if DATA.search(file):
            place = (file.rpartition("/")[0], file.rpartition(".")[2].lower())
            count[place] += 1
            if count[place] <= _MOST:
                kept.append(file)
    return kept


def _templates(files: list[str]) -> dict[str, Template]:
    made: dict[str, Template] = {}
    for file in files:
        for text, key in _readings(file):
            template = made.setdefault(text, Template(text))
            if file not in template.files[key]:
                template.files[key].append(file)
    return made


def _readings(file: str) -> Iterator[tuple[str, str]]:
    """(pattern, key) of every plain way to read one path."""
    folder, _, name = file.rpartition("/")
    ending = DATA.search(name)
    assert ending is not None
    stem, end = name[: ending.start()], ending.group()
    parts = folder.split("/") if folder else []
    if any(re.search(r"[{}*?\\]", part) for part in [*parts, name]):
        return
    parts = ["{split}" if part in SPLIT_WORDS else part for part in parts]
    for above, group in _grouped(parts):
        for text, case in _stems(stem):
            yield "/".join([*above, text + end]), f"{group}/{case}" if group else case
    for depth in (1, 2):
        if len(parts) < depth or parts[-depth] == "{split}":
            continue
        case, before, after = parts[-depth], parts[:-depth], parts[len(parts) - depth + 1 :]
        inside = stem.replace(case, "{case}", 1) if case in stem else stem
        yield "/".join([*before, "{case}", *after, inside + end]), case
        yield "/".join([*before, "{case}", *after, "{part}" + end]), case
        yield "/".join([*before, "{case}", *after, "*" + end]), case


def _grouped(parts: list[str]) -> Iterator[tuple[list[str], str]]:
    """The folders as they are, and with one of the last two as {group}."""
    yield parts, ""
    for at in range(max(0, len(parts) - 2), len(parts)):
        if parts[at] != "{split}":
            yield [*parts[:at], "{group}", *parts[at + 1 :]], parts[at]


def _stems(stem: str) -> Iterator[tuple[str, str]]:
    """(pattern, case) of a name without its ending: all of it, without a last word, without a first word."""
    yield "{case}", stem
    for mark in re.finditer(r"[-_. ]", stem):
        head, tail = stem[: mark.start()], stem[mark.start() :]
        if head and re.search(r"[A-Za-z]|^_0000$", tail):
            yield "{case}" + tail, head
        lead, rest = stem[: mark.end()], stem[mark.end() :]
        if rest and re.search(r"[A-Za-z]", lead) and not re.search(r"[0-9]", lead):
            yield lead + "{case}", rest
