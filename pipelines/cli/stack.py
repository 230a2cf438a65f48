"""`segfoundry stack up|down|status`: the MLflow and Prefect pages of a workspace."""

from __future__ import annotations

from typing import Any

import typer

from pipelines.cli.output import JsonOption, WorkspaceOption, logs, show, table

app = typer.Typer(no_args_is_help=True, help="Start, end and list the MLflow and Prefect servers of a workspace.")


@app.command()
def up(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Start both servers in the background, on free ports of this machine only, and say their addresses.

    Example: `segfoundry stack up --workspace workspaces/demo`
    """
    from infra import services
    from pipelines import orchestration

    place = _place(workspace)
    logs().print("starting MLflow and Prefect (up to a minute) …")
    wanted = [
        services.mlflow_service(place.tracking_uri, place.artifact_root),
        services.prefect_service(orchestration.home(place.state)),
    ]
    _show(services.up(place.state, wanted))


@app.command()
def down(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """End the servers that `stack up` started for this workspace, and nothing else."""
    from infra import services

    ended = services.down(_place(workspace).state)
    show({"ended": ended}, f"ended: {', '.join(ended) or 'nothing ran'}")


@app.command()
def status(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List the servers that run for this workspace."""
    from infra import services

    _show(services.status(_place(workspace).state))


def _place(option: Any) -> Any:
    from infra.settings import resolve_workspace
    from pipelines.workspace import Workspace

    return Workspace.existing(resolve_workspace(option, "demo"))


def _show(running: dict[str, dict[str, Any]]) -> None:
    rows = [[name, one["url"], one["pid"]] for name, one in running.items()]
    shown: list[Any] = [table("", ["server", "address", "process"], rows)]
    if "prefect" in running:
        shown.append(f"flows of other shells: export PREFECT_API_URL={running['prefect']['api']}")
    show({"services": running}, *(shown if rows else ["no server runs; start them: segfoundry stack up"]))
