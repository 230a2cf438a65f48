"""`segfoundry data check|new-card`: for whoever writes the card of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.output import JsonOption, WorkspaceOption, found_failure, show, table

CardOption = Annotated[
    Path | None,
    typer.Option(
        "--card", metavar="FILE", help="A card as YAML, for data that needs no code (docs/bring-your-own-data.md)."
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root", "--folder", metavar="DIR", help="The raw files of that one dataset; default: as `data fetch` finds."
    ),
]


def check(
    name: Annotated[str, typer.Argument(metavar="[DATASET]", help="Name of a card; or give --card.")] = "",
    card: CardOption = None,
    root: RootOption = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Read only the first so many cases; 0: all.")] = 0,
    overlays: Annotated[
        Path | None,
        typer.Option("--overlays", metavar="FILE", help="Where pictures go; default with --card: beside the card."),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a card on a folder without ingesting anything: what matched, what did not, what would be refused.

    The tool for whoever writes a card. Overlays go on one HTML page. Exit code 1 where a file is unmatched or
    a case refused. Example: `segfoundry data check --card my.yaml --root /data/my-polyps`
    """
    from infra.storage import write_text
    from preprocessing.check import check as try_card
    from preprocessing.check_page import Pictures, page

    chosen, written, folder = _chosen(name, card, root, workspace)
    pictures = Pictures(chosen.concepts)
    found = try_card(chosen, folder, limit=limit, written=written, see=pictures.see)
    found["notices"] += about_pseudonyms(chosen)
    if not found["ok"]:
        found_failure()
    target = overlays or (card.with_name(f"{card.stem}.check.html") if card else None)
    if target is not None:
        write_text(target, page(found, pictures))
    document = {**found, "folder": str(folder), "overlays": str(target) if target else None}
    show(document, *_report(document))


def new_card(
    root: Annotated[Path, typer.Option("--root", metavar="DIR", help="The folder with the raw files.")],
    name: Annotated[str, typer.Option("--name", help="Name of the dataset; default: the folder's.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the card here; default: show it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at an unknown folder and propose a card: what is an image, what is its mask, what do its values mean.

    Guesses are said in comments; what only you can know is marked TODO. Nothing is read twice, nothing ingested.
    Example: `segfoundry data new-card --root /data/my-polyps --out my-polyps.yaml`
    """
    from infra.errors import UsageError
    from infra.storage import write_text
    from preprocessing.propose import propose

    if not root.is_dir():
        msg = f"--root: expected a folder with raw files, found none at {root}"
        raise UsageError(msg)
    if out is not None and out.exists():
        msg = f"--out: expected a new file, found {out}. Nothing is overwritten"
        raise UsageError(msg)
    text = propose(root, name)
    if out is None:
        from rich.text import Text

        show({"card": text}, Text(text))
        return
    write_text(out, text)
    said = f"{out}: read its comments, set what is marked TODO, then: segfoundry data check --card {out} --root {root}"
    show({"card": text, "file": str(out)}, said)


def _chosen(name: str, card: Path | None, root: Path | None, option: Any) -> tuple[Any, dict[str, str], Path]:
    """The card, its expressions as written, and the folder."""
    from infra.errors import UsageError
    from infra.settings import load_settings, resolve_workspace
    from pipelines.plan import locate_datasets
    from pipelines.workspace import Workspace
    from preprocessing.yaml_card import read_card, yaml_cards

    if bool(name) == (card is not None):
        msg = "expected the name of a dataset or --card FILE, found " + ("both" if name else "neither")
        raise UsageError(msg)
    place = Workspace(resolve_workspace(option, "default"))
    file = card
    if file is None and (own := place.card(name).name) in (files := yaml_cards(place.cards)):
        file = files[own]
    read = read_card(file) if file else None
    chosen = read.card if read else place.card(name)
    if root is not None and not root.is_dir():
        msg = f"--root/--folder: expected a folder with the raw files of {chosen.name}, found none at {root}"
        raise UsageError(msg)
    if root is None and card is not None:
        msg = f"--root: expected the folder that {card} describes, found no --root"
        raise UsageError(msg)
    if root is None:
        settings = load_settings()
        found = locate_datasets([chosen.name], place.state, settings, with_phantoms=False, workspace=place)
        root = Path(found[chosen.name]["path"])
    return chosen, dict(read.written) if read else {}, root


def about_pseudonyms(card: Any) -> list[str]:
    """A notice where a closed dataset would get pseudonyms that anybody can make."""
    from infra.settings import load_settings

    if card.public or load_settings().pseudonym_key:
        return []
    return [
        f"{card.name} is closed and SEGFOUNDRY_PSEUDONYM_KEY is not set: pseudonyms made with the public key can be "
        "guessed. Set it to a secret of your own before you ingest"
    ]


def _report(found: dict[str, Any]) -> list[Any]:
    counts = ", ".join(
        f"{key} {found[key]}" for key in ("cases_found", "cases_read", "cases_kept", "samples", "groups")
    )
    expressions = []
    for row in found["expressions"]:
        notes = [", ".join(row["examples"])] if row["examples"] else []
        notes += [f"{one['files']} would match with {one['why']}, e.g. {one['example']}" for one in row["near"]]
        expressions.append([row["layout"], row["role"], row["expression"], row["files"], "\n".join(notes)])
    columns = ["layout", "role", "expression", "files", "examples and near misses"]
    shown: list[Any] = [
        f"{found['dataset']} in {found['folder']}: {counts}",
        table("Expressions", columns, expressions, right=("files",)),
        table("Objects", ["concept", "count"], [[concept, count] for concept, count in found["objects"].items()]),
    ]
    files = found["files"]
    shown.append(
        f"files: {files['files_found']} found = {files['files_used']} used + {files['files_quarantined']} refused or "
        f"unmatched or not read + {files['files_not_data']} no data"
    )
    apart = found["orphans"]
    if apart["without_label"] or apart["without_image"]:
        shown.append(
            f"pairs: {apart['without_label']} image(s) without a label {apart['without_label_examples']}, "
            f"{apart['without_image']} label(s) without an image {apart['without_image_examples']}"
        )
    if apart["hint"]:
        shown.append(apart["hint"])
    if found["problems"]:
        keys = ["case_id", "file", "reason", "expected", "found"]
        rows = [[row[key] for key in keys] for row in found["problems"]]
        shown.append(table(f"Problems: {_counted(found['reasons'])}", ["case", *keys[1:]], rows))
    shown += [f"notice: {notice}" for notice in found["notices"]]
    if found["overlays"]:
        shown.append(f"overlays: {found['overlays']}")
    return shown


def _counted(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())
