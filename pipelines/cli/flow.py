"""`segfoundry flow run|serve`: the Prefect flow, once or by the clock."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.output import JsonOption, LicenceOption, WorkspaceOption, logs, show

app = typer.Typer(no_args_is_help=True, help="Run the retraining flow once, or serve it for schedules and triggers.")


@app.command()
def run(workspace: WorkspaceOption = None, licence: LicenceOption = None, as_json: JsonOption = False) -> None:
    """Look for changed raw files, make what is stale, and release the model: the demo's flow on your workspace.

    A dataset of `params.yaml` that is found nowhere is an error here, not replaced by phantoms.

    Example: `segfoundry flow run --workspace /data/segfoundry`
    """
    from infra.settings import resolve_workspace
    from pipelines import demo as job
    from pipelines.cli.demo import show_outcome
    from pipelines.cli.progress import following

    with following():
        outcome = job.run(resolve_workspace(workspace, "default"), phantoms=False, licence=licence)
    show_outcome(outcome)


@app.command()
def serve(
    workspace: WorkspaceOption = None,
    every: Annotated[
        int | None, typer.Option("--every-minutes", min=1, help="Also run by the clock; else on demand only.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Offer the flow to a Prefect server until Ctrl-C: runs are started on its pages, by the API or by the clock.

    The server is the one in PREFECT_API_URL, else that of `segfoundry stack up` for this workspace.

    Example: `segfoundry flow serve --every-minutes 60`
    """
    import os
    from datetime import timedelta

    from infra.errors import UsageError
    from infra.settings import resolve_workspace
    from pipelines import orchestration
    from pipelines.workspace import Workspace

    place = Workspace.existing(resolve_workspace(workspace, "default"))
    orchestration.prepare(place.state)
    if not os.environ.get("PREFECT_API_URL"):
        msg = f"no Prefect server is known. Start one: segfoundry stack up --workspace {place.root}"
        raise UsageError(msg)
    from pipelines import retrain

    logs().print(f"serving retrain/{place.root.name} at {os.environ['PREFECT_API_URL']}; end with Ctrl-C")
    retrain.refresh.serve(
        name=place.root.name,
        parameters={"workspace": str(place.root)},
        interval=timedelta(minutes=every) if every else None,
        print_starting_message=False,
    )
    show({"served": place.root.name}, "no longer served")
