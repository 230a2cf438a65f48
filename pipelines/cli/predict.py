"""`segfoundry model predict`: masks of pictures and volumes by a registered model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.output import JsonOption, WorkspaceOption, show, table


def predict(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="champion, a version, NAME@ALIAS, models:/NAME/VERSION, or a folder."),
    ],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES…", help="Pictures, NIfTI, NRRD or MetaImage volumes, folders of a DICOM series."),
    ],
    prompts: Annotated[list[str], typer.Option("--prompt", "-p", metavar="WORDS", help="A concept; again for more.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write: a new or empty folder.")],
    intensity: Annotated[
        str,
        typer.Option(
            "--intensity", help="auto, as_is, voi, ct, mr, window:LOW:HIGH or percentile:LOW:HIGH: values to 8 bits."
        ),
    ] = "auto",
    like: Annotated[
        str, typer.Option("--like", metavar="DATASET", help="Read as this training dataset was: window, spacing, axis.")
    ] = "",
    axis: Annotated[str, typer.Option("--axis", help="Slices across z, y or x; auto: the coarsest spacing.")] = "auto",
    frame: Annotated[int, typer.Option("--frame", help="Of a 4D volume, counted from 0.")] = -1,
    dicom_seg: Annotated[bool, typer.Option("--dicom-seg", help="Of a DICOM series, a DICOM-SEG too.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Segment files by words: a PNG a prompt for pictures, a NIfTI on the original grid for volumes, scores as JSON.

    `predictions.json` in the folder says scores, boxes and by which rule intensities were read. A DICOM-SEG names the
    patient and study of its source. Example: `segfoundry model predict champion scan.nii.gz --prompt "left kidney"
    --out masks`
    """
    from pipelines.predictions import INDEX_FILE, opened, predict_files

    params = {"intensity": intensity, "like": like, "axis": axis, "frame": frame}
    with opened(model, None if Path(model).is_dir() else _store(workspace)) as (predictor, said):
        done = predict_files(predictor, said, files, prompts, out, params=params, dicom_seg=dicom_seg)
    rows = [
        [Path(one["file"]).name, answer["prompt"], answer["score"], answer.get("pixels", answer.get("voxels")),
         answer.get("millilitres"), answer["mask"]]
        for one in done["files"]
        for answer in one["prompts"]
    ]  # fmt: skip
    columns = ["file", "prompt", "score", "marked", "millilitres", "mask"]
    title = f"{said['name']} {said['version'] or ''}".strip()
    shown: list[Any] = [table(title, columns, rows, right=("score", "marked", "millilitres"))]
    show({"folder": str(out), **done}, *shown, f"{out / INDEX_FILE}")


def _store(option: Any) -> Any:
    from infra.settings import resolve_workspace
    from pipelines.release import open_store
    from pipelines.workspace import Workspace

    return open_store(Workspace.existing(resolve_workspace(option, "default")))
