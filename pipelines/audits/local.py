"""What this machine keeps of cases beside DVC's objects: pictures of evaluations, copies of versions, decoded arrays.

All of it is found by a list (`overlays.json`, `index.json`) or by its folder's name. What a list names goes before the
list does, so that a removal that was killed finds the rest again.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from infra.storage import write_json
from pipelines.evaluations import EVALUATIONS, REVISIONS
from pipelines.workspace import Workspace
from registry.tracking import read_overlays

Document = dict[str, Any]

OVERLAYS, INDEX = "overlays.json", "index.json"
PICTURE, COPY, DECODED = "picture of an evaluation", "copy of a dataset version", "arrays decoded for training"


def kept(place: Workspace, cases: Collection[str], versions: Sequence[Document]) -> list[Document]:
    """{"path", "what", "bytes"} of what shows `cases` ("dataset/case_id"), and of copies of `versions` ("data_version",
    "dataset").

    Paths are in the workspace. Of an evaluation it is the pictures alone: its figures say nothing that the manifests,
    which stay, do not say. `bytes` is None for a picture that is gone while its list still names it.
    """
    found = [
        (folder / one["file"], PICTURE)
        for folder in _evaluations(place)
        for one in read_overlays(folder)
        if case_of(one) in cases
    ]
    found += [(folder, COPY) for one in versions for folder in _copies(place, one)]
    found += [(folder, DECODED) for folder in _prepared(place) if _names_one(folder / INDEX, cases)]
    return [
        {"path": path.relative_to(place.root).as_posix(), "what": what, "bytes": _bytes(path)} for path, what in found
    ]


def remove(place: Workspace, listed: Sequence[Document], cases: Collection[str]) -> int:
    """Remove what `kept` listed, and the pictures of `cases` from the lists of evaluations; return how many went."""
    count = 0
    for one in listed:
        path = place.root / one["path"]
        if path.is_dir():
            _remove_folder(path)
        elif path.is_file():
            path.unlink()
        else:
            continue
        count += 1
    for folder in _evaluations(place):
        shown = read_overlays(folder)
        others = [one for one in shown if case_of(one) not in cases]
        if len(others) < len(shown):
            write_json(folder / OVERLAYS, others)
    return count


def half_written(place: Workspace) -> list[str]:
    """Folders without their list, as a killed command leaves them: nobody knows whom their pictures show."""
    evaluations = [one for one in _all_evaluations(place) if one.name.endswith("part-tmp")]
    return [
        f"{folder.relative_to(place.root).as_posix()}: half written, nothing says whom it shows; remove it"
        for folders, listed in ((evaluations, OVERLAYS), (_prepared(place), INDEX))
        for folder in folders
        if not (folder / listed).is_file() and any(folder.iterdir())
    ]


def case_of(overlay: Document) -> str:
    """The "dataset/case_id" of an entry of `overlays.json`."""
    return "/".join(str(overlay["sample_id"]).split("/")[:2])


def _evaluations(place: Workspace) -> list[Path]:
    """Folders of evaluations that have a list of their pictures."""
    return [folder for folder in _all_evaluations(place) if (folder / OVERLAYS).is_file()]


def _all_evaluations(place: Workspace) -> list[Path]:
    """The workspace's own and those of `segfoundry evaluate --model`; of killed ones what they left, too."""
    own = [place.evaluation, *sorted(place.root.glob(f".{place.evaluation.name}.*part-tmp"))]
    return [folder for folder in [*own, *sorted((place.state / EVALUATIONS).glob("*"))] if folder.is_dir()]


def _prepared(place: Workspace) -> list[Path]:
    return [folder for folder in sorted((place.state / "train" / "prepared").glob("*")) if folder.is_dir()]


def _names_one(index: Path, cases: Collection[str]) -> bool:
    """Whether the index of decoded arrays names a sample of one of `cases`, or a volume that is one."""
    text = index.read_text(encoding="utf-8") if index.is_file() else ""
    return any(f'"{case}/' in text or f'"{case}"' in text for case in cases)


def _copies(place: Workspace, version: Document) -> Iterator[Path]:
    """Copies of a dataset version, half a one of a killed command too. A link leads to the live version: no copy."""
    folder = place.state / REVISIONS / version["data_version"]
    for path in (folder / version["dataset"], *sorted(folder.glob(f".{version['dataset']}.*part-tmp"))):
        if path.is_dir() and not path.is_symlink():
            yield path


def _bytes(path: Path) -> int | None:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else None


def _remove_folder(folder: Path) -> None:
    for path in sorted(folder.iterdir(), key=lambda path: path.name == INDEX):  # by which it is found again
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    folder.rmdir()
