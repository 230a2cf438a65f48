"""`segfoundry data check|diff|drift|leakage|export`: questions about datasets, and the way out in other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.output import JsonOption, WorkspaceOption, found_failure, show, table

NameArgument = Annotated[str, typer.Argument(metavar="DATASET", help="Name of a card, in any case of letters.")]


def check(
    name: NameArgument,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="The raw files; default: as `data fetch` finds.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Read only the first so many cases; 0: all.")] = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a card on a folder without writing anything: what matched, what did not, what would be refused.

    The tool for whoever writes a card. Exit code 1 where a file is unmatched or a case refused.
    Example: `segfoundry data check BUSI --limit 5`
    """
    from infra.errors import UsageError
    from infra.settings import load_settings
    from pipelines.plan import locate_datasets
    from preprocessing.cards import load_card
    from preprocessing.check import check as try_card

    card = load_card(name)
    if folder is not None and not folder.is_dir():
        msg = f"--folder: expected a folder with the raw files of {card.name}, found none at {folder}"
        raise UsageError(msg)
    if folder is None:
        state = _place(workspace).state
        folder = Path(locate_datasets([card.name], state, load_settings(), with_phantoms=False)[card.name]["path"])
    found = try_card(card, folder, limit=limit)
    if not found["ok"]:
        found_failure()
    counts = ", ".join(f"{key} {found[key]}" for key in ("cases_found", "cases_read", "cases_kept", "samples"))
    objects = [[concept, count] for concept, count in found["objects"].items()]
    problems = [
        [row["case_id"], row["file"], row["reason"], row["expected"], row["found"]] for row in found["problems"]
    ]
    shown: list[Any] = [f"{card.name} in {folder}: {counts}", table("Objects", ["concept", "count"], objects)]
    if problems:
        shown.append(table("Problems", ["case", "file", "reason", "expected", "found"], problems))
    show({**found, "folder": str(folder)}, *shown)


def diff(
    name: NameArgument,
    old: Annotated[str, typer.Argument(metavar="OLD", help="A data version, e.g. data-v1.")],
    new: Annotated[str, typer.Argument(metavar="[NEW]", help="Another one; default: the newest.")] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """What changed in a dataset between two data versions, sample by sample.

    Example: `segfoundry data diff BUSI data-v1 data-v2`
    """
    from pipelines import history
    from pipelines.plan import known_dataset
    from preprocessing.diff import diff as compare

    place = _existing(workspace)
    dataset = known_dataset(name)
    versions = history.data_versions(place)
    newest = new or (versions[-1] if versions else "data-v1")
    found = compare(history.manifest_at(place, dataset, old), history.manifest_at(place, dataset, newest))
    rows = [[what, count] for what, count in found["counts"].items()]
    document = {"dataset": dataset, "old": old, "new": newest, **found}
    show(document, table(f"{dataset}: {old} → {newest}", ["samples", "count"], rows, right=("count",)))


def drift(
    name: NameArgument,
    old: Annotated[str, typer.Argument(metavar="[OLD]", help="A data version; default: the one before.")] = "",
    new: Annotated[str, typer.Argument(metavar="[NEW]", help="Another one; default: the newest.")] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """How far a dataset moved between two data versions: sizes, spacings, intensities, objects, concepts.

    A figure has moved where its population stability index is above 0.25 and above what chance gives for so
    few groups. Nothing is refused for it. Example: `segfoundry data drift BUSI data-v1`
    """
    from infra.errors import UsageError
    from pipelines import history
    from pipelines.plan import known_dataset
    from preprocessing.fingerprint import drift as compare

    place = _existing(workspace)
    dataset = known_dataset(name)
    versions = history.data_versions(place)
    newest = new or (versions[-1] if versions else "data-v1")
    older = old or history.version_before(place, dataset, newest)
    if not older:
        msg = f"{dataset}: expected an earlier data version with other contents than {newest}, found none. Name one"
        raise UsageError(msg)
    found = compare(history.fingerprint_at(place, dataset, older), history.fingerprint_at(place, dataset, newest))
    title = f"{dataset}: {older} → {newest}"
    columns = ["figure", "PSI", "tolerance", "median before", "median after", "moved"]
    figures = [
        [
            f"{one['figure']} ({one['unit']})",
            one["psi"],
            one["tolerance"],
            one["before"],
            one["after"],
            _yes(one["moved"]),
        ]
        for one in found["figures"]
    ]
    concepts = [
        [one["concept"], one["psi"], one["tolerance"], one["before"], one["after"], _yes(one["moved"])]
        for one in found["concepts"]
    ]
    counts = ", ".join(f"{name} {was} → {now}" for name, (was, now) in found["counts"].items())
    shown = [table(title, columns, figures, right=tuple(columns[1:5]))]
    columns = ["concept", "PSI", "tolerance", "share of samples before", "after", "moved"]
    shown.append(table("", columns, concepts, right=tuple(columns[1:5])))
    show({"dataset": dataset, "old": older, "new": newest, **found}, *shown, counts)


def _yes(value: bool) -> str:
    return "moved" if value else ""


def leakage(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """The same patient or picture on both sides of a split, within and between the workspace's datasets.

    Found by group, by equal pixels with and without their labels, as near duplicates (JPEG, resizing, flips,
    another window) and as whole volumes. Exit code 1 where there are any; training refuses such a version.

    Example: `segfoundry data leakage --workspace workspaces/demo`
    """
    from infra.errors import UsageError
    from pipelines import gates
    from preprocessing.leakage import KINDS

    place = _existing(workspace)
    names = [name for name in place.params().datasets if (place.data / name / "dataset.json").is_file()]
    if not names:
        msg = f"{place.data}: expected dataset versions, found none. Run: segfoundry data ingest"
        raise UsageError(msg)
    found = gates.leakage(place, names)
    if not found["ok"]:
        found_failure()
    shown: list[Any] = [_matrix(found), f"no crossing within or between {len(names)} datasets"]
    if found["matrix"]:
        keys = ["train", "part", "held_out", "split", *KINDS]
        rows = [[one[key] for key in keys] for one in found["matrix"]]
        examples = [
            [one["kind"], *one["samples"], one.get("correlation", one.get("value"))] for one in found["examples"]
        ]
        shown[1:] = [
            table("Crossings", keys, rows, right=KINDS),
            table("Examples", ["kind", "sample", "held out", "correlation or value"], examples),
        ]
    show(found, *shown)


def _matrix(found: dict[str, Any]) -> Any:
    """Datasets by what is trained on (rows) and what is held out (columns, by number): crossings of all kinds."""
    from preprocessing.leakage import KINDS

    names = found["datasets"]
    cells: dict[tuple[str, str], int] = {}
    for one in found["matrix"]:
        pair = (one["train"], one["held_out"])
        cells[pair] = cells.get(pair, 0) + sum(one[kind] for kind in KINDS)
    columns = [str(number) for number in range(1, len(names) + 1)]
    rows = [
        [number, name, *[cells.get((name, other), "·") for other in names]]
        for number, name in enumerate(names, start=1)
    ]
    return table("Train (rows) × held out (columns)", ["", "dataset", *columns], rows, right=("", *columns))


def export(
    name: NameArgument,
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write.")],
    kind: Annotated[str, typer.Option("--format", help="coco or webdataset.")] = "coco",
    split: Annotated[str, typer.Option("--split", help="train, val or test; default: all.")] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset version as COCO or WebDataset; pixels and masks stay exactly what they are.

    Example: `segfoundry data export BUSI exports/busi --format coco --split test`
    """
    from infra.errors import UsageError
    from pipelines.plan import known_dataset
    from preprocessing.export import export as write

    place = _existing(workspace)
    dataset = known_dataset(name)
    if not (place.data / dataset / "dataset.json").is_file():
        msg = f"{place.data / dataset}: no dataset version here. Run: segfoundry data ingest {dataset}"
        raise UsageError(msg)
    done = write(place.data / dataset, target, kind, split)
    show({"dataset": dataset, "folder": str(target), **done}, f"{done['samples']} samples as {kind} in {target}")


def _place(option: Any) -> Any:
    from infra.settings import resolve_workspace
    from pipelines.workspace import Workspace

    return Workspace(resolve_workspace(option, "default"))


def _existing(option: Any) -> Any:
    from pipelines.workspace import Workspace

    return Workspace.existing(_place(option).root)
