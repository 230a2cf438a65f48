"""`segfoundry withdraw`: take a case out of every later build."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.output import JsonOption, WorkspaceOption, show, table


def withdraw(
    case: Annotated[str, typer.Option("--case", help="A case or group id, alone or as dataset/id.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in git and in the ledger for ever.")],
    actor: Annotated[str, typer.Option("--actor", help="Who; default: the user of this process.")] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a case, or a patient with all cases, out of every later build, and say what has seen it.

    Sets a tombstone that is versioned in git, for the case and for what shows the same: copies that were set aside
    as its duplicates, near duplicates, and by SHA-256 any exact copy that comes later. Marks the models that were
    trained or measured on the case, and lists the old shards that still hold it. The next run builds shards without
    it and trains again. Exit code 1 where no data version holds the case.

    Example: `segfoundry withdraw --case BUSI/benign__1_ --reason "consent withdrawn"`
    """
    from infra.settings import resolve_workspace
    from pipelines import withdraw as verb
    from pipelines.release import open_store
    from pipelines.workspace import Workspace
    from registry.ledger import default_actor

    place = Workspace.existing(resolve_workspace(workspace, "default"))
    found = verb.withdraw(place, open_store(place), case, reason=reason, actor=actor or default_actor())
    models = [[one["version"], ", ".join(one["aliases"]), ", ".join(one["uses"])] for one in found["models"]]
    purge = [[one["data_version"], one["split"], ", ".join(one["shards"])] for one in found["purge"]]
    show(
        found,
        f"{', '.join(found['cases'])}: {'withdrawn' if found['changed'] else 'was withdrawn already'}",
        *([f"and what shows the same: {', '.join(found['twins'])}"] if found["twins"] else []),
        table("Models that saw it", ["version", "aliases", "use"], models) if models else "no model has seen it",
        table(
            "Old versions that hold it: delete these when they may not be kept", ["version", "split", "shards"], purge
        ),
        f"build without it and train again: {found['next']}",
    )
