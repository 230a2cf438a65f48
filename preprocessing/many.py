"""Files about many images: each image of a stack, and each that a COCO file or a table names, is a case of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from infra.errors import CaseError
from infra.storage import sha256_file
from preprocessing.cards import ABOUT_MANY, DatasetCard, LabelRule, RawCase, RunLengths, Sprites
from preprocessing.pairing import clean_id, group_of
from preprocessing.readers.coco import match_images, read_coco
from preprocessing.readers.runs import read_runs
from preprocessing.readers.sprites import read_sprites, there
from preprocessing.readers.stacks import stack_length

_MOST_IMAGES = 10_000_000


def expand(cases: list[RawCase], card: DatasetCard, root: Path) -> Iterator[RawCase]:
    """Cases with every stack and every COCO file taken apart.

    A file that cannot be read stays one case, so that the case is refused with the reason.
    """
    by_files: dict[tuple[str, ...], list[RawCase]] = defaultdict(list)
    for case in cases:
        if isinstance(case.rule or card.labels, ABOUT_MANY) and case.labels:
            by_files[case.labels].append(case)
        elif case.layout is not None and case.layout.stacked and case.images:
            yield from _unstacked(case, card, root)
        else:
            yield case
    taken = {case.case_id for case in cases}
    for files, members in by_files.items():
        yield from _by_coco(files, members, card, root, taken)


def shares_files(case: RawCase, card: DatasetCard) -> bool:
    """Whether other cases read the same files."""
    return case.index is not None or isinstance(case.rule or card.labels, ABOUT_MANY)


def digest_of_shared(path: Path) -> str:
    """SHA-256 of a file that many cases read: once for all of them, as long as it stays the same file."""
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, mtime_ns: int, ctime_ns: int, inode: int) -> str:
    return sha256_file(path)


def _unstacked(case: RawCase, card: DatasetCard, root: Path) -> Iterator[RawCase]:
    assert case.layout is not None
    try:
        count = stack_length(root / case.images[0], case.layout)
    except CaseError:
        count = _MOST_IMAGES + 1
    if count > _MOST_IMAGES:
        yield case
        return
    for index in range(count):
        case_id = f"{case.case_id}_{index:05d}".strip("_")
        group = group_of(card, case_id) if case.group == group_of(card, case.case_id) else case.group  # of the path
        yield replace(case, case_id=case_id, group=group, index=index)


def _named_in(path: Path, rule: LabelRule) -> list[str]:
    """The images that a file is about."""
    if isinstance(rule, RunLengths):
        return list(read_runs(path, rule))
    return list(read_sprites(path, rule) if isinstance(rule, Sprites) else read_coco(path))


def _pieces(root: Path, said: dict[str, str], rule: LabelRule) -> list[str]:
    """Files of their own that hold the masks of an image, where the rule has such, as far as they are there."""
    if not isinstance(rule, Sprites):
        return []
    found = [
        there(root, file, sprite.mask)
        for file, name in said.items()
        for sprite in read_sprites(root / file, rule)[name]
    ]
    return list(dict.fromkeys(file for file in found if file is not None))


def _by_coco(
    files: tuple[str, ...], cases: list[RawCase], card: DatasetCard, root: Path, taken: set[str]
) -> Iterator[RawCase]:
    """Images with the files that name them, and a case for each image that is named and not there."""
    images = [case.images[0] for case in cases if case.images]
    named: dict[str, dict[str, str]] = defaultdict(dict)  # image -> {COCO file: file_name}
    missing: list[tuple[str, str]] = []
    try:
        for file in files:
            listed = _named_in(root / file, cases[0].rule or card.labels)
            matched = match_images(images, listed)
            for image, name in matched.items():
                named[image][file] = name
            missing += [(file, name) for name in listed if name not in set(matched.values())]
    except CaseError:
        yield from cases
        return
    for case in cases:
        if case.images:
            said = named[case.images[0]]
            pieces = _pieces(root, said, case.rule or card.labels)
            yield replace(case, labels=(*said, *pieces), parts=tuple(sorted(said.items())))
        elif not missing:  # a file that names no image
            yield case
    for file, name in missing:
        case_id = clean_id(f"{Path(file).with_suffix('')}_{name}")
        while case_id in taken:
            case_id += "_missing"
        taken.add(case_id)
        example = cases[0]
        yield replace(
            example, case_id=case_id, group=group_of(card, case_id), images=(), labels=(file,), parts=((file, name),),
            split="",
        )  # fmt: skip
