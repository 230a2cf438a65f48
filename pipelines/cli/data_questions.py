"""`segfoundry data diff|drift|leakage`: questions about datasets."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from pipelines.cli.output import HtmlOption, JsonOption, WorkspaceOption, found_failure, show, table

NameArgument = Annotated[str, typer.Argument(metavar="DATASET", help="Name of a card, in any case of letters.")]


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
    manifests alone. Where a manifest is older than its digests, pixels may be `pixels_not_told`.
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
        dataset, old, new = known_dataset(first, place.cards), second or newest, third or newest
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


def leakage(html: HtmlOption = None, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
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
    if html:
        from pipelines.audits.pages import leakage_page
        from registry.audit_page import write_page

        write_page(html, leakage_page(found, place))
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


def _matrix(found: dict[str, Any]) -> str:
    """Datasets by what is trained on (rows) and what is held out (columns, by number): crossings of all kinds."""
    from preprocessing.leakage import KINDS

    names = found["datasets"]
    cells: dict[tuple[str, str], int] = {}
    for one in found["matrix"]:
        pair = (one["train"], one["held_out"])
        cells[pair] = cells.get(pair, 0) + sum(one[kind] for kind in KINDS)
    # a drawn table of thirty columns fits no terminal: a sign a dataset does
    cell = 1 + max(len(str(value)) for value in [len(names), *cells.values()])
    left = max(map(len, names))
    numbers = range(1, len(names) + 1)
    head = "Train (rows) × held out (columns)"
    lines = [head, " " * (left + cell) + "".join(f"{number:>{cell}}" for number in numbers)]
    lines += [
        f"{name:<{left}}{number:>{cell}}" + "".join(f"{cells.get((name, other), '·'):>{cell}}" for other in names)
        for number, name in zip(numbers, names, strict=True)
    ]
    return "\n".join(lines)


def _place(option: Any) -> Any:
    from infra.settings import resolve_workspace
    from pipelines.workspace import Workspace

    return Workspace(resolve_workspace(option, "default"))


def _existing(option: Any) -> Any:
    from pipelines.workspace import Workspace

    return Workspace.existing(_place(option).root)
