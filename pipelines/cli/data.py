"""`segfoundry data …`: from raw files to dataset versions, and questions about them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines.cli.data_cards import CardOption, RootOption, about_pseudonyms
from pipelines.cli.output import JsonOption, LicenceOption, WorkspaceOption, found_failure, logs, show, table

app = typer.Typer(no_args_is_help=True, help="Datasets: list, fetch, check, ingest, describe, compare, export.")

NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[DATASET]...", help="Names of cards; default: those of params.yaml.")
]
NameArgument = Annotated[str, typer.Argument(metavar="DATASET", help="Name of a card, in any case of letters.")]


def _root(option: Any) -> Any:
    from infra.settings import resolve_workspace

    return resolve_workspace(option, "default")


def _existing(option: Any) -> Any:
    from pipelines.workspace import Workspace

    return Workspace.existing(_root(option))


@app.command("list")
def list_(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Every dataset that has a card, and what the workspace holds of it.

    Example: `segfoundry data list --workspace workspaces/demo`
    """
    from pipelines.workspace import Workspace
    from preprocessing.cards import all_cards
    from preprocessing.schema import read_dataset_file

    place = Workspace(_root(workspace))
    roots = place.roots()
    rows = []
    for card in all_cards(place.cards).values():
        complete = (place.data / card.name / "dataset.json").is_file()
        built = read_dataset_file(place.data / card.name) if complete else {}
        rows.append(
            {
                "name": card.name,
                "title": card.title,
                "modality": card.modality,
                "licence": card.licence.spdx or card.licence.terms,
                "source": roots.get(card.name, {}).get("kind"),
                "samples": built.get("counts", {}).get("samples"),
                "manifest_digest": built.get("manifest_digest"),
            }
        )
    columns = ["name", "title", "modality", "licence", "source", "samples"]
    shown = table("", columns, [[row[key] for key in columns] for row in rows], right=("samples",))
    show({"workspace": str(place.root), "datasets": rows}, shown)


@app.command()
def fetch(
    names: NamesArgument = None,
    card: CardOption = None,
    root: RootOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find raw files (mirror, else official address), hash them, and write what the ingest stage depends on.

    Makes the workspace where there is none. After it, `dvc repro` by hand works too. A --card becomes the
    workspace's own, `cards/NAME.yaml`, under git; a --root is remembered on this machine.
    Example: `segfoundry data fetch BUSI Kvasir-SEG`
    """
    from pipelines import manual
    from pipelines.cli.progress import following

    with following():
        place, roots = manual.fetch(_root(workspace), names or [], card=card, folder=root)
    rows = [[name, one["kind"], one["reason"], one["path"]] for name, one in roots.items()]
    datasets = [{"name": name, **one} for name, one in roots.items()]
    columns = ["dataset", "source", "reason", "folder"]
    show({"workspace": str(place.root), "datasets": datasets}, table("", columns, rows))


@app.command()
def ingest(
    names: NamesArgument = None,
    card: CardOption = None,
    root: RootOption = None,
    workspace: WorkspaceOption = None,
    licence: LicenceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch, harmonize and version datasets: shards, manifest, cases, quarantine, card; then a data version tag.

    A case that cannot be used goes to quarantine with its reason, and the run goes on; so does a case that shows
    what a case of a more held-out split shows (`duplicate`). Exit code 1 where nothing of a dataset could be used.
    Examples: `segfoundry data ingest MSD_Hippocampus_udacity`,
    `segfoundry data ingest --card my.yaml --root /data/my-polyps`
    """
    from pipelines import events, history, manual
    from pipelines.cli.progress import following
    from preprocessing.schema import read_dataset_file

    left_out: list[dict[str, Any]] = []
    with following(), events.listening(lambda event: left_out.append(event) if event["kind"] == "left_out" else None):
        place, roots = manual.fetch(_root(workspace), names or [], card=card, folder=root, licence=licence)
        for notice in dict.fromkeys(text for name in roots for text in about_pseudonyms(place.card(name))):
            logs().print(f"notice: {notice}")
        made = manual.make(place, [f"ingest@{name}" for name in roots])
    rows = []
    for name in roots:
        built = read_dataset_file(place.data / name)
        rows.append({"name": name, **built["counts"], "manifest_digest": built["manifest_digest"]})
    empty = [row["name"] for row in rows if not row["cases_kept"]]
    if empty:
        found_failure()
    keys = ["name", "cases_found", "cases_kept", "cases_quarantined", "samples", "objects"]
    shown = table("", keys, [[row.get(key) for key in keys] for row in rows], right=tuple(keys[1:]))
    version = history.data_versions(place)[-1]
    drifts = [history.drift_since_before(place, name, version) for name in roots if f"ingest@{name}" in made]
    said = [
        f"{one['dataset']} moved since {one['old']}: {', '.join(one['moved'])}"
        for one in drifts
        if one and one["moved"]
    ]
    said += [f"{name}: nothing could be used; data/{name}/quarantine.parquet and its card say why" for name in empty]
    document = {
        "workspace": str(place.root),
        "made": made,
        "data_version": version,
        "datasets": rows,
        "drift": [one for one in drifts if one],
        "left_out": [{"name": event["dataset"], "reason": event["reason"]} for event in left_out],
    }
    show(
        document, shown, f"data version {version}; " + (f"made: {', '.join(made)}" if made else "nothing to do"), *said
    )


@app.command()
def card(name: NameArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """What is known about a dataset: its card, and of the version in the workspace fingerprint, leakage and page.

    Example: `segfoundry data card dcmqi`
    """
    from rich.text import Text

    from infra.storage import read_json
    from pipelines import gates, history, pages
    from pipelines.workspace import Workspace
    from preprocessing.leakage import row_of
    from preprocessing.schema import CARD_FILE, FINGERPRINT_FILE, read_dataset_file

    place = Workspace(_root(workspace))
    found = place.card(name)
    folder = place.data / found.name
    built = read_dataset_file(folder) if (folder / "dataset.json").is_file() else None
    whole = pages.page_of(place, found.name)
    page = str(whole if whole.is_file() else folder / CARD_FILE) if built else None
    versions = history.data_versions(place) if built else []
    moved = history.drift_since_before(place, found.name, versions[-1]) if versions else None
    beside = pages.ingested(place) if built else []
    shared = row_of(gates.leakage(place, beside), found.name) if found.name in beside else None
    figures = read_json(folder / FINGERPRINT_FILE) if built and (folder / FINGERPRINT_FILE).is_file() else None
    document = {
        "card": found.resolved(), "version": built, "fingerprint": figures, "leakage": shared, "page": page,
        "drift": moved,
    }  # fmt: skip
    lines: list[Any] = [
        Text.assemble((found.name, "bold"), f": {found.title} ({found.modality})"),
        f"licence: {found.licence.spdx or found.licence.terms}   homepage: {found.homepage}",
        f"cite: {found.citation}",
        f"concepts: {', '.join(found.concepts)}",
        f"page: {page}" if page else f"not ingested in this workspace: segfoundry data ingest {found.name}",
    ]
    if shared:
        lines.append(f"leakage: {shared['said']}")
    if moved:
        lines.append(f"moved since {moved['old']}: {', '.join(moved['moved']) or 'nothing beyond its tolerance'}")
    show(document, *lines)
