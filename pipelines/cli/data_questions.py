"""`segfoundry data diff|drift|leakage`: questions about datasets."""

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
    dataset = known_dataset(name, place.cards)
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


def _place(option: Any) -> Any:
    from infra.settings import resolve_workspace
    from pipelines.workspace import Workspace

    return Workspace(resolve_workspace(option, "default"))


def _existing(option: Any) -> Any:
    from pipelines.workspace import Workspace

    return Workspace.existing(_place(option).root)
