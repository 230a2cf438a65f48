"""`segfoundry flow run|serve`: the Prefect flows, once, or by the clock and by what arrives."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines.cli.output import JsonOption, LicenceOption, WorkspaceOption, found_failure, logs, show, table
from pipelines.flows import NAMES

app = typer.Typer(no_args_is_help=True, help="Run a flow once, or serve them for schedules and data that arrives.")


@app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help=f"One of {', '.join(NAMES)}.")] = "retrain",
    workspace: WorkspaceOption = None,
    licence: LicenceOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Of retrain: say what would be done and why, and touch nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a flow once, in this process.

    retrain looks for changed raw files and for datasets that arrived in SEGFOUNDRY_WATCH, makes what is stale, holds
    the data against its gates, trains, evaluates, and promotes the model or says why not: exit code 1. ingest, train,
    evaluate and promote are its parts. audit holds every shard against its hash, the ledger's chain, leakage, and
    looks for what belongs to nothing: exit code 1 with the evidence.
    A dataset of `params.yaml` that is found nowhere is an error here, not replaced by phantoms. Killed and started
    again, a flow goes on where it was.

    Examples: `segfoundry flow run`, `segfoundry flow run retrain --dry-run`, `segfoundry flow run audit`
    """
    from infra.errors import UsageError
    from infra.settings import resolve_workspace
    from pipelines.cli.progress import following

    if name not in NAMES:
        msg = f"flow run: expected one of {', '.join(NAMES)}, found {name!r}"
        raise UsageError(msg)
    if licence and (dry_run or name != "retrain"):
        msg = f"--licence: expected a real run of the flow retrain, found {name}{' --dry-run' if dry_run else ''}; "
        msg += "the others go by train.licence of params.yaml"
        raise UsageError(msg)
    root = resolve_workspace(workspace, "default")
    if dry_run:
        if name != "retrain":
            msg = f"--dry-run: expected the flow retrain, found {name}"
            raise UsageError(msg)
        _show_forecast(root)
    elif name == "audit":
        _show_audit(root)
    elif name == "retrain":
        from pipelines import demo as job
        from pipelines.cli.demo import show_outcome

        with following():
            outcome = job.run(root, phantoms=False, licence=licence)
        show_outcome(outcome)
    else:
        with following():
            outcome = _run(root, name)
        made = ", ".join(outcome["stages_run"]) or "nothing to do"
        if "model" not in outcome:
            show(outcome, f"{name}: {made}")
            return
        if outcome["gate"]["verdict"] != "pass":
            found_failure()
        model = outcome["model"]
        show(
            outcome,
            f"{model['name']} version {model['version']} @{model['alias'] or '(none)'}: "
            f"gate {outcome['gate']['verdict']}",
            *(f"blocks: {rule['explanation']}" for rule in outcome["gate"]["rules"] if not rule["ok"]),
            *([f"waits: {outcome['waits']}"] if outcome["waits"] else []),
        )


def _run(root: Any, name: str) -> dict[str, Any]:
    from pipelines import orchestration
    from pipelines.workspace import Workspace

    place = Workspace.existing(root)
    orchestration.prepare(place.state)
    from pipelines.flows.run import in_this_process

    return in_this_process(place, name)


def _show_audit(root: Any) -> None:
    from infra.errors import CheckFailed
    from pipelines.cli.progress import following

    try:
        with following():
            document = _run(root, "audit")
    except CheckFailed as error:
        document = getattr(error, "document", {})
        if not document:
            raise
        found_failure()
    rows = [[name, "; ".join(one["findings"]) or "holds"] for name, one in document["checks"].items()]
    show(document, table(f"Audit of {document['at']}", ["check", "verdict"], rows))


def _show_forecast(root: Any) -> None:
    from pipelines.forecast import forecast
    from pipelines.workspace import Workspace

    found = forecast(Workspace.existing(root))
    datasets = [[one["name"], one["state"], one["why"]] for one in found["datasets"]]
    stages = [[one["name"], "; ".join(one["why"]), one["expected_s"]] for one in found["stages"]]
    total = found["expected_s"]
    lines = [
        f"starts from: {found['start']}" if any(one["name"] == "train" for one in found["stages"]) else "",
        f"expected: {total} s" if total is not None else "expected: not known, some stage was never timed here",
        *[f"asked for by {one['actor']}: {one['key']} {one['cause']}: {one['reason']}" for one in found["requests"]],
        *[f"not taken from the watched place: {one['folder']}: {one['reason']}" for one in found["arrivals_left"]],
    ]
    show(
        found,
        table("Datasets", ["dataset", "state", "why"], datasets),
        table("Would run", ["stage", "why", "seconds"], stages, right=("seconds",)) if stages else "Nothing to do.",
        *[line for line in lines if line and (stages or not line.startswith("expected"))],
    )


@app.command()
def serve(
    workspace: WorkspaceOption = None,
    watch: Annotated[
        str | None, typer.Option("--watch", metavar="PLACE", help="Folder or fsspec URL. Default: SEGFOUNDRY_WATCH.")
    ] = None,
    retrain_cron: Annotated[
        str | None,
        typer.Option("--retrain-cron", metavar="CRON", help="Default: SEGFOUNDRY_RETRAIN_CRON, else Sunday 02:00."),
    ] = None,
    audit_cron: Annotated[
        str | None,
        typer.Option("--audit-cron", metavar="CRON", help="Default: SEGFOUNDRY_AUDIT_CRON, else every night at 04:00."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the flows until Ctrl-C: by the clock, when a dataset arrives, and on demand from Prefect's pages.

    A sub-folder of the watched place that is named like a card, or holds a card.yaml, is a dataset: once it is at rest,
    it is added to params.yaml and a retraining runs. One run at a time; one that died is marked crashed and taken up
    again. An empty CRON means: not by the clock. The server is the one in PREFECT_API_URL, else that of
    `segfoundry stack up` for this workspace.

    Example: `segfoundry flow serve --watch /data/incoming --retrain-cron "0 2 * * 0"`
    """
    import os
    from pathlib import Path

    from infra.errors import UsageError
    from infra.remote import is_remote
    from infra.settings import load_settings, resolve_workspace
    from pipelines import orchestration
    from pipelines.workspace import Workspace

    place = Workspace.existing(resolve_workspace(workspace, "default"))
    if watch is not None:  # children look in the same place
        os.environ["SEGFOUNDRY_WATCH"] = watch
    settings = load_settings()
    os.environ["SEGFOUNDRY_WATCH"] = settings.watch
    given = {"retrain_cron": retrain_cron, "audit_cron": audit_cron}
    settings = settings.model_copy(update={key: value for key, value in given.items() if value is not None})
    if settings.watch and not is_remote(settings.watch) and not Path(settings.watch).is_dir():
        msg = f"--watch {settings.watch}: expected a folder with one folder per dataset, found none. Make it first"
        raise UsageError(msg)
    orchestration.prepare(place.state)
    if not os.environ.get("PREFECT_API_URL"):
        msg = f"no Prefect server is known. Start one: segfoundry stack up --workspace {place.root}"
        raise UsageError(msg)
    from pipelines import serve as job

    logs().print(f"{place.root} at {os.environ['PREFECT_API_URL']}; end with Ctrl-C")
    job.serve(place, job.Plan.of(settings), lambda line: logs().print(line, soft_wrap=True))
    show({"served": str(place.root)}, "no longer served")
