"""`segfoundry audit model|case|data|ledger`: what made a model, where a case went, whether it all still holds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines.cli.output import JsonOption, WorkspaceOption, found_failure, show, table

app = typer.Typer(
    no_args_is_help=True, help="Proof: what made a model, where a case went, whether files and ledger hold."
)
HeadOption = Annotated[
    str, typer.Option("--head", metavar="HASH", help="A head noted down before: it must still be a row of the chain.")
]


def _open(option: Any) -> tuple[Any, Any]:
    from infra.settings import resolve_workspace
    from pipelines.release import open_store
    from pipelines.workspace import Workspace

    place = Workspace.existing(resolve_workspace(option, "default"))
    return place, open_store(place)


@app.command()
def model(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version number or an alias.")] = "champion",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Data, licences, code, parameters, evaluation and gate of a version, and how to build it again.

    Example: `segfoundry audit model champion`
    """
    from pipelines.workspace import MODEL_NAME
    from registry.audit import audit_model

    _, store = _open(workspace)
    found = audit_model(store, MODEL_NAME, version)
    keys = ("dataset", "modality", "source_kind", "licence", "cases", "samples", "manifest_digest")
    rows = [[str(one[key])[:12] if key == "manifest_digest" else one[key] for key in keys] for one in found["datasets"]]
    show(
        found,
        f"{found['model']} version {found['version']} ({', '.join(found['aliases']) or 'no alias'})",
        f"data version {found['data_version']} ({found['data_commit'][:12]}), code {found['code_commit'][:12]}, "
        f"strictest licence: {found['strictest_licence']}; commercial use: {found['commercial_use']}; "
        f"redistribution: {found['redistribution']}",
        table("", ["dataset", "modality", "source", "licence", "cases", "samples", "manifest"], rows),
        f"weights {found['weights_sha256'][:12]} from start {found['parent']['start_sha256'][:12]}, "
        f"{found['steps']} steps, seed {found['seed']}",
        f"gate: {found['gate']['verdict'] if found['gate'] else 'not judged'}",
        f"build it again: {found['rebuild']}",
    )


@app.command()
def case(
    key: Annotated[str, typer.Argument(metavar="CASE", help="A case or group id, alone or as dataset/id.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every data version, split, shard and model that a case is in. Exit code 1 where it is in none.

    Example: `segfoundry audit case BUSI/benign__1_`
    """
    from pipelines import history
    from pipelines.workspace import MODEL_NAME
    from registry.audit import audit_case

    place, store = _open(workspace)
    found = audit_case(key, history.manifests(place), store.versions(MODEL_NAME))
    if not found["found"]:
        found_failure()
        show(found, f"{key}: in no data version of {place.root}")
        return
    columns = ["data_version", "dataset", "case_id", "group_id", "split", "samples"]
    rows = [[one[column] for column in columns] for one in found["places"]]
    models = [[one["version"], ", ".join(one["aliases"]), one["dataset"], one["use"]] for one in found["models"]]
    show(
        found,
        table("Where it is", columns, rows),
        table("Who saw it", ["version", "aliases", "dataset", "use"], models) if models else "no model has seen it",
    )


@app.command()
def data(
    dataset: Annotated[str, typer.Argument(metavar="[DATASET]", help="One dataset; default: all.")] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every shard again and hold it against the SHA-256 and the manifest digest that its version quotes.

    DVC itself does not notice a flipped byte in its cache. Exit code 1 where something does not hold.
    Example: `segfoundry audit data BUSI`
    """
    from pipelines import verify
    from pipelines.plan import known_dataset

    place, _ = _open(workspace)
    names = [known_dataset(dataset, place.cards)] if dataset else place.params().datasets
    found = [verify.dataset(place, name) for name in names]
    if not all(one["ok"] for one in found):
        found_failure()
    rows = [[one["dataset"], one["shards"], one["rows"], "; ".join(one["problems"]) or "holds"] for one in found]
    document = {"ok": all(one["ok"] for one in found), "datasets": found}
    show(document, table("", ["dataset", "shards", "rows", "verdict"], rows, right=("shards", "rows")))


@app.command()
def ledger(head: HeadOption = "", workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Whether the hash chain of promotions holds and agrees with MLflow's aliases. Exit code 1 where not.

    Note the head that it prints down outside of the database; given back as --head, it shows rows cut off since.
    Example: `segfoundry audit ledger --json`
    """
    from registry.audit import audit_ledger

    _, store = _open(workspace)
    found = audit_ledger(store, head)
    if not found["ok"]:
        found_failure()
    problems = [*found["problems"], *found["drift"]]
    said = "the chain holds" if found["ok"] else "does NOT hold"
    show(found, f"{found['entries']} rows: {said}", f"head {found['head'] or 'unknown'}", *problems)
