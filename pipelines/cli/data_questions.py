"""`segfoundry data check|diff|leakage`: questions about datasets."""

from __future__ import annotations

import re
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
    first: Annotated[
        str, typer.Argument(metavar="[DATASET] OLD", help="A data version, e.g. data-v1; before it the name of a card.")
    ],
    second: Annotated[str, typer.Argument(metavar="[NEW]", help="Another one; default: the newest.")] = "",
    third: Annotated[str, typer.Argument(metavar="", hidden=True)] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """What changed between two data versions, sample by sample: in all datasets, or in one.

    Added, removed, changed pixels, changed labels, moved to another split, regrouped, re-licensed; from the
    manifests alone. Where masks and image files changed together, the pixels are `pixels_not_told`.
    Example: `segfoundry data diff data-v1 data-v2`, `segfoundry data diff BUSI data-v1`
    """
    from pipelines import history
    from pipelines.plan import known_dataset

    place = _existing(workspace)
    versions = history.data_versions(place)
    newest = versions[-1] if versions else "data-v1"
    if first in versions or re.fullmatch(r"data-v\d+", first):
        dataset, old, new = "", first, second or newest
    else:
        dataset, old, new = known_dataset(first), second or newest, third or newest
    found = history.compare(place, old, new, dataset)
    keys = ["added", "removed", "changed_labels", "changed_pixels", "pixels_not_told", "moved", "regrouped", "same"]
    rows = [
        [name, one["state"], *(one["counts"][key] if "counts" in one else None for key in keys)]
        for name, one in found.items()
    ]
    shown: list[Any] = [table(f"{old} → {new}", ["dataset", "state", *keys], rows, right=tuple(keys))]
    shown += [
        f"{name}: the licence is another: {one['relicensed']['from']} → {one['relicensed']['to']}"
        for name, one in found.items()
        if one.get("relicensed")
    ]
    document = {"dataset": dataset, **found[dataset]} if dataset else {"datasets": found}
    show({"old": old, "new": new, **document}, *shown)


def leakage(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Groups or identical content on both sides of a split, within and between the workspace's datasets.

    Exit code 1 where there are any. Example: `segfoundry data leakage --workspace workspaces/demo`
    """
    from infra.errors import UsageError
    from preprocessing.leakage import leakage as search
    from preprocessing.schema import read_manifest

    place = _existing(workspace)
    names = [name for name in place.params().datasets if (place.data / name / "dataset.json").is_file()]
    if not names:
        msg = f"{place.data}: expected dataset versions, found none. Run: segfoundry data ingest"
        raise UsageError(msg)
    found = search({name: read_manifest(place.data / name) for name in names})
    if not found["ok"]:
        found_failure()
    keys = ["train", "held_out", "split", "groups", "contents"]
    rows = [[one[key] for key in keys] for one in found["matrix"]]
    said: Any = table("Crossings", keys, rows) if rows else f"no crossing within or between {len(names)} datasets"
    show({**found, "datasets": names}, said)


def _place(option: Any) -> Any:
    from infra.settings import resolve_workspace
    from pipelines.workspace import Workspace

    return Workspace(resolve_workspace(option, "default"))


def _existing(option: Any) -> Any:
    from pipelines.workspace import Workspace

    return Workspace.existing(_place(option).root)
