"""COCO JSON: one file that says of many images what is on them, as polygons and run lengths."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from infra.errors import CaseError
from preprocessing.readers import decoding

_MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class Annotation:
    """One object: category name in lower case, `segmentation` as in the file, whether it is a crowd."""

    name: str
    segmentation: Any
    crowd: bool


@dataclass(frozen=True)
class CocoImage:
    """One image: its size as the file says it (0 where it does not) and what is on it."""

    width: int
    height: int
    annotations: tuple[Annotation, ...]


def read_coco(path: Path) -> dict[str, CocoImage]:
    """`file_name` -> image, in the file's order; of images of one name the annotations are put together.

    The last files are held in memory, since every image of a file asks for it. Raises CaseError
    `unreadable`, `too_large`; an annotation of an image or category that is not listed is unreadable.
    """
    with decoding(path, "a COCO file"):
        stat = path.stat()
    if stat.st_size > _MAX_BYTES:
        raise CaseError("too_large", expected=f"at most {_MAX_BYTES} bytes", found=f"{stat.st_size}")
    return _read(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=2)
def _read(path: Path, size: int, mtime_ns: int, inode: int) -> dict[str, CocoImage]:
    with decoding(path, "a COCO file"):
        value = json.loads(path.read_bytes())
        categories = {each["id"]: str(each["name"]).strip().lower() for each in value["categories"]}
        names = {each["id"]: str(each["file_name"]) for each in value["images"]}
        sizes = {each["id"]: (int(each.get("width") or 0), int(each.get("height") or 0)) for each in value["images"]}
        found: dict[str, list[Annotation]] = defaultdict(list)
        for each in value.get("annotations") or []:
            annotation = Annotation(
                categories[each["category_id"]], each.get("segmentation"), bool(each.get("iscrowd"))
            )  # fmt: skip
            found[names[each["image_id"]]].append(annotation)
    images: dict[str, CocoImage] = {}
    for number, name in names.items():
        if name in images and (images[name].width, images[name].height) != sizes[number]:
            raise CaseError("unreadable", expected="one size an image", found=f"two sizes of {name}")
        images[name] = CocoImage(*sizes[number], tuple(found[name]))
    return images


def match_images(files: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """File -> `file_name`, by the longest common end of their paths, whole names each.

    A file whose best match another file has as well, or that fits two names equally, has no match:
    which of them is meant, nobody can tell.
    """
    by_base: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_base[_parts(name)[-1]].append(name)
    best: dict[str, tuple[int, list[str]]] = {}
    for file in files:
        ranked = [(_common(file, name), name) for name in by_base.get(_parts(file)[-1], [])]
        if ranked:
            most = max(count for count, _ in ranked)
            best[file] = (most, [name for count, name in ranked if count == most])
    claims: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for file, (count, fitting) in best.items():
        if len(fitting) == 1:
            claims[fitting[0]].append((count, file))
    matched = {}
    for name, claimed in claims.items():
        most = max(count for count, _ in claimed)
        winners = [file for count, file in claimed if count == most]
        if len(winners) == 1:
            matched[winners[0]] = name
    return matched


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts or ("",)


def _common(left: str, right: str) -> int:
    count = 0
    for one, other in zip(reversed(_parts(left)), reversed(_parts(right)), strict=False):
        if one != other:
            break
        count += 1
    return count
