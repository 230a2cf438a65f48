"""`segfoundry stage …`: the commands of `dvc.yaml`. Hidden: people use `data ingest`, `train`, `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.output import JsonOption, logs, show

app = typer.Typer(no_args_is_help=True, help="The commands of dvc.yaml, run in the workspace's folder by DVC.")


@app.command()
def ingest(dataset: Annotated[str, typer.Argument(help="Name of the card.")], as_json: JsonOption = False) -> None:
    """Build data/DATASET from sources/DATASET.jsonl."""
    _run(f"ingest@{dataset}")


@app.command()
def train(as_json: JsonOption = False) -> None:
    """Build models/candidate."""
    _run("train")


@app.command()
def evaluate(as_json: JsonOption = False) -> None:
    """Build evaluation."""
    _run("evaluate")


def _run(stage: str) -> None:
    from infra.processes import recorded_children
    from pipelines import stages
    from pipelines.workspace import Workspace

    workspace = Workspace.existing(Path.cwd())
    with recorded_children(workspace.state):
        result = stages.run_stage(workspace, stage)
    logs().print(f"{stage}: done")
    show(result)
