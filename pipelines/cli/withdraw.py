"""`segfoundry withdraw`: take a case out of every later build."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.output import JsonOption, WorkspaceOption, found_failure, show, table


def withdraw(
    case: Annotated[
        str, typer.Option("--case", help="dataset/case_id, a group id (a patient with all cases), or an original name.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in git and in the ledger for ever.")],
    actor: Annotated[str, typer.Option("--actor", help="Who; default: the user of this process.")] = "",
    build: Annotated[
        bool, typer.Option("--build/--no-build", help="Build the shards without it now, or leave that to the next run.")
    ] = True,
    purge: Annotated[
        bool, typer.Option("--purge", help="Then delete the old shards from cache and remotes, as `audit purge` does.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --purge: do not ask before deleting.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a case, or a patient with all cases, out of every later build, and say what has seen it.

    Sets a tombstone that is versioned in git, for the case and for what shows the same, in this dataset and in others:
    copies that were set aside as its duplicates, near duplicates, and by SHA-256 any exact copy that comes later. Marks
    the models that were trained or measured on the case, asks for a retraining (`retrain_requests.jsonl`), builds new
    shards without it, searches them, and lists the old shards that still hold it. Exit code 2 for an unknown key, 1
    where something of it is still in the live shards.

    Example: `segfoundry withdraw --case BUSI/benign__1_ --reason "consent withdrawn"`
    """
    from infra.settings import resolve_workspace
    from pipelines import withdraw as verb
    from pipelines.cli.audit import run_purge
    from pipelines.cli.progress import following
    from pipelines.release import open_store
    from pipelines.workspace import Workspace
    from registry.ledger import default_actor

    place, who = Workspace.existing(resolve_workspace(workspace, "default")), actor or default_actor()
    store = open_store(place)
    with following():
        found = verb.withdraw(place, store, case, reason=reason, actor=who, build=build or purge)
    models = [
        [one["name"], one["version"], ", ".join(one["aliases"]), ", ".join(one["uses"])] for one in found["models"]
    ]
    old = [[one["data_version"], one["dataset"], one["split"], ", ".join(one["shards"])] for one in found["purge"]]
    if found["search"] and not found["search"]["ok"]:
        found_failure()
    shown = [
        f"{', '.join(found['cases'])}: {'withdrawn' if found['changed'] else 'was withdrawn already'}",
        *([f"and what shows the same: {', '.join(found['twins'])}"] if found["twins"] else []),
        table("Models that saw it", ["model", "version", "aliases", "use"], models)
        if models
        else "no model has seen it",
        table("Old versions that hold it", ["version", "dataset", "split", "shards"], old),
        f"when these may not be kept: segfoundry audit purge {found['key']} --workspace {place.root}",
        _searched(found["search"], found["data_version"]),
        *([f"retraining asked for, request {found['retrain']['id']}"] if found["retrain"] else []),
        f"train again without it: {found['next']}",
    ]
    if not purge:
        show(found, *shown)
        return
    if not as_json:
        show(found, *shown)
    run_purge(place, store, case, yes=yes, dry_run=False, actor=who)


def _searched(search: dict[str, object] | None, version: str) -> str:
    if search is None:
        return "not built yet: the next run makes shards without it"
    return f"{version}: a search of the live shards finds {'nothing of it' if search['ok'] else search['evidence']}"
