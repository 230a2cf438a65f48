"""`segfoundry demo`: the main job, end to end."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines.cli.output import JsonOption, WorkspaceOption, found_failure, show, table


def demo(
    workspace: WorkspaceOption = None,
    datasets: Annotated[
        str, typer.Option("--datasets", metavar="NAME,NAME…", help="Only these datasets (names of cards).")
    ] = "",
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Training steps, for a quick look (default: the recipe's).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Harmonize, version, train, evaluate, register and promote, on the datasets of `params.yaml`.

    Raw files come from the folder or URL in SEGFOUNDRY_MIRROR, else from each dataset's official address, else
    built-in phantoms with known truth stand in. A second run with nothing changed does nothing. Killed and
    started again, it goes on.

    Example: `SEGFOUNDRY_MIRROR=../shared/data segfoundry demo`
    """
    from infra.settings import resolve_workspace
    from pipelines import demo as job
    from pipelines.cli.progress import following

    names = [name.strip() for name in datasets.split(",") if name.strip()] or None
    with following():
        outcome = job.run(resolve_workspace(workspace, "demo"), datasets=names, steps=steps)
    show_outcome(outcome)


def show_outcome(outcome: dict[str, Any]) -> None:
    """The table, the gate, where the time went and what to do next; a gate that blocks is a failure."""
    columns = ["dataset", "modality", "source", "samples", "quarantined", "Dice before", "Dice after"]
    keys = ("name", "modality", "source", "samples", "quarantined", "dice_before", "dice_after")
    rows = [
        [f"{row['name']} (external)" if row["external"] else row["name"], *(row[key] for key in keys[1:])]
        for row in outcome["datasets"]
    ]
    rows.append(["mean", "", "", None, None, outcome["dice_text_before"], outcome["dice_text_after"]])
    if outside := outcome["summary"].get("external"):
        figures = [outside["dice_text_before"], outside["dice_text_after"]]
        rows.append(["mean, external (never trained on)", "", "", None, None, *figures])
    gate, model, place = outcome["gate"], outcome["model"], outcome["workspace"]
    blocked = gate["verdict"] != "pass"
    lines = [
        f"Gate: {gate['verdict']}. Model: {model['name']} version {model['version']} @{model['alias'] or '(none)'}"
    ]
    lines += [f"  blocks: {rule['explanation']}" for rule in gate["rules"] if not rule["ok"]]
    lines += [f"  waits: {outcome['waits']}"] if outcome["waits"] else []
    lines.append(
        f"Data version: {outcome['data_version']}. Score on absent concepts: {_number(outcome['score_absent'])}"
    )
    took = ", ".join(f"{name} {value:.1f} s" for name, value in outcome["seconds"].items())
    lines.append(f"Time: {took}")
    if not outcome["changed"]:
        lines.append("Nothing to do: data, training, evaluation and model are up to date.")
    lines += [
        f"Report: {outcome['report']}",
        f"MLflow and Prefect pages: segfoundry stack up --workspace {place}   (ends with: segfoundry stack down)",
        "Next: your own data in 15 minutes, see CONTRIBUTING.md; what made this model: "
        f"segfoundry audit model champion --workspace {place}",
    ]
    if blocked:
        found_failure()
    show(outcome, table("Test split, text prompts", columns, rows, right=tuple(columns[3:])), *lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
