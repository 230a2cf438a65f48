"""`segfoundry train` and `segfoundry evaluate`: a stage where DVC says it is out of date, or any model on any data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from infra.errors import UsageError
from pipelines.cli.output import JsonOption, LicenceOption, WorkspaceOption, show


def train(workspace: WorkspaceOption = None, licence: LicenceOption = None, as_json: JsonOption = False) -> None:
    """Fine-tune SAM3 on the datasets of the workspace's `params.yaml`, but for external test sets.

    Datasets that are out of date are ingested first. Data in which a patient or picture lies on both sides of a
    split are refused: `segfoundry data leakage` lists them. Nothing happens when nothing changed. Killed and
    started again, it goes on from the last checkpoint. Knobs: the `train` section of `params.yaml`.

    Example: `segfoundry train --workspace workspaces/demo`
    """
    _make(workspace, "train", licence)


def evaluate(
    model: Annotated[
        str,
        typer.Option(metavar="URI", help="Model folder, models:/NAME@alias or models:/NAME/VERSION."),
    ] = "",
    against: Annotated[
        str, typer.Option(metavar="URI", help="A second model, as --model: paired differences to it, with intervals.")
    ] = "",
    data: Annotated[
        str, typer.Option(metavar="REV", help="Data version, e.g. data-v2; a dot: the workspace as it is.")
    ] = ".",
    split: Annotated[str, typer.Option(help="train, val or test. Default: evaluate.split of params.yaml.")] = "",
    prompts: Annotated[
        str,
        typer.Option(
            help="Comma-separated: text (the headline), box (of the truth: privileged), synonym (robust wording). "
            "Default: evaluate.prompts of params.yaml."
        ),
    ] = "",
    datasets: Annotated[str, typer.Option(help="Comma-separated names. Default: all of the data version.")] = "",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Evaluation folder. Default: one below .segfoundry/evaluations."),
    ] = None,
    one_process: Annotated[bool, typer.Option("--one-process", help="In this process alone, without Ray.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on a split: text prompts first, boxes of the truth apart.

    Without --model: the evaluate stage of the workspace, candidate against its start. What it needs and is out of
    date is made first, and nothing happens when nothing changed. With --model any model is measured on any data
    version; an older one's shards come through DVC's cache. docs/evaluation.md defines every figure.

    Example: `segfoundry evaluate --model models:/segfoundry-sam3@champion --data data-v2 --split test --prompts text`
    """
    if not model:
        given: dict[str, Any] = {
            "--against": against,
            "--split": split,
            "--prompts": prompts,
            "--datasets": datasets,
            "--out": out,
        }
        given |= {"--one-process": one_process, "--data": data.removeprefix(".")}
        if extra := [name for name, value in given.items() if value]:
            msg = f"{', '.join(extra)}: expected --model with it, found none. The candidate: --model models/candidate"
            raise UsageError(msg)
        _make(workspace, "evaluate")
        return
    _measure(workspace, model, against, data, split, prompts, datasets, out, one_process)


def _measure(
    workspace: Path | None,
    model: str,
    against: str,
    data: str,
    split: str,
    prompts: str,
    datasets: str,
    out: Path | None,
    one_process: bool,
) -> None:
    from infra.processes import recorded_children
    from infra.settings import resolve_workspace
    from pipelines import evaluations
    from pipelines.cli.progress import following
    from pipelines.workspace import Workspace

    if split not in ("", "train", "val", "test"):
        msg = f"--split {split}: expected train, val or test"
        raise UsageError(msg)
    place = Workspace.existing(resolve_workspace(workspace, "default"))
    asked = evaluations.Asked(
        model=model,
        data=data,
        against=against,
        split=split,
        prompts=_names(prompts),
        datasets=_names(datasets),
        out=out,
        one_process=one_process,
    )
    with following(), recorded_children(place.state):
        evaluation, folder = evaluations.run(place, asked)
    show({"folder": str(folder), "evaluate": evaluation}, _tables(evaluation, folder))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _tables(evaluation: dict[str, Any], folder: Path) -> Any:
    """Dice of each dataset with its interval, and the differences to the other models."""
    from pipelines.cli.output import table

    def number(value: float | None, bounds: list[float] | None = None) -> str:
        if value is None:
            return ""
        return f"{value:.3f}" + (f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else "")

    rows = []
    for entry in evaluation["aggregates"]:
        if entry["model"] == "after" and entry["metric"] == "dice" and entry["level"] in ("all", "dataset"):
            name = entry["name"] or "mean of datasets"
            kind = "box (privileged)" if entry["prompt"] == "box" else entry["prompt"]
            where = "external" if entry["external"] else ""
            rows.append([name, where, kind, number(entry["value"], entry["interval"]), str(entry["pairs"])])
    for entry in evaluation["paired"]:
        if entry["level"] == "all":
            where = "external" if entry["external"] else ""
            said = f"{entry['difference']:+.3f}"
            said += f" ({entry['interval'][0]:+.3f} to {entry['interval'][1]:+.3f})" if entry["interval"] else ""
            rows.append([f"difference to {entry['against']}", where, "text", said, str(entry["pairs"])])
    title = f"Dice on {evaluation['split']}, 95 % intervals over groups: {folder}"
    return table(title, ["dataset", "", "prompt", "Dice", "pairs"], rows)


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
