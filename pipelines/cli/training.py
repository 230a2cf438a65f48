"""`segfoundry train` and `segfoundry evaluate`: one stage, where DVC says it is out of date."""

from __future__ import annotations

from typing import Any

from pipelines.cli.output import JsonOption, LicenceOption, WorkspaceOption, show


def train(workspace: WorkspaceOption = None, licence: LicenceOption = None, as_json: JsonOption = False) -> None:
    """Fine-tune SAM3 on the datasets of the workspace's `params.yaml`, but for external test sets.

    Datasets that are out of date are ingested first. Data in which a patient or picture lies on both sides of a
    split are refused: `segfoundry data leakage` lists them. Nothing happens when nothing changed. Killed and
    started again, it goes on from the last checkpoint. Knobs: the `train` section of `params.yaml`.

    Example: `segfoundry train --workspace workspaces/demo`
    """
    _make(workspace, "train", licence)


def evaluate(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Measure start checkpoint and candidate on the test split, text prompts first.

    What it needs and is out of date is made first. Nothing happens when nothing changed.

    Example: `segfoundry evaluate --json`
    """
    _make(workspace, "evaluate")


def _make(workspace: Any, stage: str, licence: str | None = None) -> None:
    from infra.settings import resolve_workspace
    from infra.storage import read_json
    from pipelines import manual
    from pipelines.cli.progress import following
    from pipelines.workspace import Workspace

    place = Workspace.existing(resolve_workspace(workspace, "default"))
    with following():
        if licence:
            manual.limit(place, licence)
        made = manual.make(place, [stage])
    folder = place.candidate if stage == "train" else place.evaluation
    file = folder / ("train.json" if stage == "train" else "evaluation.json")
    document = {"made": made, "folder": str(folder), stage: read_json(file)}
    said = f"{', '.join(made)}: done, see {folder}" if made else f"nothing to do: {folder} is up to date"
    show(document, said)
