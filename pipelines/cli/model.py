"""`segfoundry model list|register|gate|promote|rollback|reconcile|predict`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli import predict
from pipelines.cli.output import JsonOption, WorkspaceOption, found_failure, show, table

app = typer.Typer(
    no_args_is_help=True, help="Versions in the MLflow registry: list, register, judge, promote, go back."
)

VersionArgument = Annotated[str, typer.Argument(metavar="VERSION", help="A version number or an alias (champion, …).")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the ledger for ever.")]
ApproveOption = Annotated[
    str, typer.Option("--approve", metavar="NAME", help="The person who approves, where the gate's rules ask for one.")
]
ActorOption = Annotated[str, typer.Option("--actor", help="Who; default: the user of this process.")]


def _open(option: Any) -> tuple[Any, Any]:
    from infra.settings import resolve_workspace
    from pipelines.release import open_store
    from pipelines.workspace import Workspace

    place = Workspace.existing(resolve_workspace(option, "default"))
    return place, open_store(place)


@app.command("list")
def list_(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """All versions, newest first, with aliases, data version and the gate's verdict.

    Example: `segfoundry model list --workspace workspaces/demo`
    """
    from pipelines.workspace import MODEL_NAME
    from registry.lineage import TAG

    _, store = _open(workspace)
    rows = [
        {
            "name": one.name,
            "version": one.version,
            "aliases": list(one.aliases),
            "data_version": one.tags.get(f"{TAG}data_version"),
            "gate": one.tags.get(f"{TAG}gate"),
            "weights_sha256": one.weights_sha256,
            "run_id": one.run_id,
        }
        for one in store.versions(MODEL_NAME)
    ]
    shown = [
        [r["version"], ", ".join(r["aliases"]), r["data_version"], r["gate"], r["weights_sha256"][:12]] for r in rows
    ]
    columns = ["version", "aliases", "data version", "gate", "weights"]
    show({"models": rows}, table(MODEL_NAME, columns, shown) if rows else "no model is registered yet")


@app.command()
def register(
    evaluation: Annotated[
        Path | None,
        typer.Option("--evaluation", metavar="DIR", help="Another evaluation of the candidate than the stage's."),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register the workspace's candidate with its evaluation and lineage; the same candidate again changes nothing.

    Example: `segfoundry model register`
    """
    from pipelines import release

    place, store = _open(workspace)
    done = release.register(place, store, evaluation)
    said = "registered" if done.created else "was registered before"
    show(asdict(done), f"{done.name} version {done.version} {said}")


@app.command()
def gate(version: VersionArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Judge a version by the `gate` section of `params.yaml` against the champion; changes nothing.

    Exit code 1 where the gate blocks. Example: `segfoundry model gate 3`
    """
    from pipelines import release

    place, store = _open(workspace)
    report = release.judge(place, store, version)
    if not report.passed:
        found_failure()
    rows = [["ok" if rule.ok else "BLOCKS", rule.name, rule.subject, rule.explanation] for rule in report.rules]
    show(report.to_dict(), table(f"Gate: {report.verdict}", ["", "rule", "dataset", "explanation"], rows))


@app.command()
def promote(
    version: VersionArgument,
    reason: ReasonOption,
    approve: ApproveOption = "",
    actor: ActorOption = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version the champion, if the gate lets it; with `gate.approval` a person must approve as well.

    Nobody can approve what the gate blocks: exit code 1. Name and reason stay in the ledger. Exit code 2 while champion
    or previous in MLflow are not what the ledger says: see `segfoundry model reconcile`.
    Example: `segfoundry model promote 3 --approve "Dr. Okafor" --reason "read 20 cases with the team"`
    """
    from pipelines import release
    from pipelines.workspace import MODEL_NAME
    from registry.ledger import default_actor
    from registry.moved import check_aliases
    from registry.promote import Approval
    from registry.promote import promote as carry_out

    place, store = _open(workspace)
    check_aliases(store, MODEL_NAME)  # the gate compares with the champion
    report = release.judge(place, store, version)
    approval = Approval(approve, reason) if approve else None
    who = actor or default_actor()
    done = carry_out(store, MODEL_NAME, version, gate=report, actor=who, reason=reason, approval=approval)
    _show_promotion(done)


@app.command()
def rollback(
    reason: ReasonOption,
    actor: ActorOption = "",
    despite: Annotated[
        bool, typer.Option("--despite-withdrawal", help="Also a version that learnt from a withdrawn case.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the previous champion, by the ledger, serve again.

    Exit code 1 where there is none, or where it learnt from a case that was withdrawn since; 2 while champion or
    previous in MLflow are not what the ledger says.
    Example: `segfoundry model rollback --reason "worse on site B"`
    """
    from pipelines.workspace import MODEL_NAME
    from registry.ledger import default_actor
    from registry.promote import rollback as carry_out

    _, store = _open(workspace)
    who = actor or default_actor()
    _show_promotion(carry_out(store, MODEL_NAME, actor=who, reason=reason, despite_withdrawal=despite))


app.command("predict")(predict.predict)


@app.command()
def reconcile(
    restore: Annotated[
        bool, typer.Option("--restore", help="Put aliases that were set by hand back to what the ledger says.")
    ] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take the aliases as they are in MLflow: the ledger says so from now on.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why, with --restore or --adopt; kept in the ledger.")] = "",
    actor: ActorOption = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Carry out what a crash left undone between ledger and aliases; promote and rollback do it first as well.

    With --restore or --adopt also settle what somebody set by hand in MLflow, which promote and rollback refuse to
    build on; --reason is needed, and a row of the ledger keeps it. Adopting asks no gate.
    Examples: `segfoundry model reconcile`, `segfoundry model reconcile --restore --reason "a slip in MLflow's page"`,
    `segfoundry model reconcile --adopt --actor "Dr. Okafor" --reason "version 3 was wrong on site B"`
    """
    from infra.errors import UsageError
    from pipelines.workspace import MODEL_NAME
    from registry import moved
    from registry.ledger import default_actor
    from registry.promote import reconcile as carry_out

    if (restore and adopt) or bool(reason) != (restore or adopt):
        msg = "model reconcile: expected one of --restore and --adopt with --reason WHY, or none of the three"
        raise UsageError(msg)
    _, store = _open(workspace)
    if restore or adopt:
        settle = moved.restore if restore else moved.adopt
        entry = settle(store, MODEL_NAME, actor=actor or default_actor(), reason=reason)
        done = [asdict(entry)] if entry else []
    else:
        done = [asdict(entry) for entry in carry_out(store, MODEL_NAME)]
    said = [f"version {one['version']}: {one['details']['targets']}" for one in done]
    show({"reconciled": done}, *(said or ["nothing was left undone"]))


def _show_promotion(done: Any) -> None:
    before = f", before it version {done.previous}" if done.previous is not None else ""
    said = "is the champion now" if done.changed else "was the champion already"
    show(asdict(done), f"{done.name} version {done.champion} {said}{before}")
