"""`segfoundry data diff|leakage`: questions about datasets."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines.cli.output import JsonOption, WorkspaceOption, found_failure, show, table

NameArgument = Annotated[str, typer.Argument(metavar="DATASET", help="Name of a card, in any case of letters.")]


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
    dataset = known_dataset(name, place.cards)
    versions = history.data_versions(place)
    newest = new or (versions[-1] if versions else "data-v1")
    found = compare(history.manifest_at(place, dataset, old), history.manifest_at(place, dataset, newest))
    rows = [[what, count] for what, count in found["counts"].items()]
    document = {"dataset": dataset, "old": old, "new": newest, **found}
    show(document, table(f"{dataset}: {old} → {newest}", ["samples", "count"], rows, right=("count",)))


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


def _place(option: Any) -> Any:
    from infra.settings import resolve_workspace
    from pipelines.workspace import Workspace

    return Workspace(resolve_workspace(option, "default"))


def _existing(option: Any) -> Any:
    from pipelines.workspace import Workspace

    return Workspace.existing(_place(option).root)
