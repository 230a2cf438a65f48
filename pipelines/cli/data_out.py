"""`segfoundry data export|back`: dataset versions in other formats, and masks on the grid they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.output import JsonOption, WorkspaceOption, show, table

NameArgument = Annotated[str, typer.Argument(metavar="DATASET", help="Name of a card, in any case of letters.")]
TargetArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write: a new or empty folder.")]


def export(
    name: NameArgument,
    target: TargetArgument,
    kind: Annotated[str, typer.Option("--format", help="coco, nnunet or webdataset.")] = "coco",
    split: Annotated[str, typer.Option("--split", help="train, val or test; default: all.")] = "",
    dimensions: Annotated[
        int, typer.Option("--dimensions", help="nnunet: 2 for the pictures or 3 for the volumes of a mixed dataset.")
    ] = 0,
    shard_mb: Annotated[int, typer.Option("--shard-mb", min=1, help="webdataset: size of a tar, in 10⁶ bytes.")] = 256,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset version as COCO (the SAM3 trainer's layout), nnU-Net v2 raw data or WebDataset tars.

    Pixels and masks stay exactly what they are, and the licence goes with them. Nothing is overwritten.
    Example: `segfoundry data export BUSI exports/busi --format coco --split test`
    """
    from preprocessing.cards import load_card
    from preprocessing.export import export as write

    dataset, folder = _version(name, workspace)
    card = load_card(dataset)
    rules = {card.instances, *(layout.instances for layout in card.layouts if layout.instances)}
    done = write(
        folder,
        target,
        kind,
        split,
        separate_instances="whole" not in rules,
        shard_bytes=shard_mb * 1_000_000,
        dimensions=dimensions,
    )
    said = [f"{done['samples']} samples, {done['objects']} objects as {kind} in {target}", *done["notes"]]
    show({"dataset": dataset, "folder": str(target), **done}, *said)


def back(
    name: NameArgument,
    case: Annotated[str, typer.Argument(metavar="CASE", help="The case id, as the manifest has it.")],
    target: TargetArgument,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            metavar="FILE",
            help="Predictions: Parquet or one JSON a line with sample_id, concept, rle. Default: the version's truth.",
        ),
    ] = None,
    algorithm: Annotated[
        str, typer.Option("--algorithm", metavar="NAME", help="What drew the masks, for the DICOM-SEG.")
    ] = "",
    algorithm_version: Annotated[str, typer.Option("--algorithm-version", metavar="TEXT")] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Masks of a case on its original grid: a NIfTI a concept, and a DICOM-SEG where the source is a DICOM series.

    The DICOM-SEG names the patient and study of its source, as DICOM demands: it belongs into the archive that
    the series came from. Example: `segfoundry data back dcmqi segmentations_ct-3slice out/`
    """
    from infra.settings import load_settings
    from pipelines.workspace import pseudonym_key
    from preprocessing.back import back as put_back
    from preprocessing.cards import load_card
    from preprocessing.dicom_seg_writer import Algorithm

    dataset, folder = _version(name, workspace)
    told = put_back(
        folder,
        load_card(dataset),
        case,
        target,
        root=Path(_existing(workspace).root_of(dataset)["path"]),
        pseudonym_key=pseudonym_key(load_settings()),
        predictions=masks,
        algorithm=Algorithm(algorithm or ("Segfoundry" if masks else ""), algorithm_version),
    )
    rows = [[concept, told["voxels"][concept], file] for concept, file in told["files"].items()]
    said: list[Any] = [
        table(f"{dataset}/{case}: {told['masks']}", ["concept", "voxels", "file"], rows, right=("voxels",))
    ]
    if "dicom_seg" in told:
        said.append(f"DICOM-SEG: {target / told['dicom_seg']}")
    if "no_dicom_seg" in told:
        said.append(f"no DICOM-SEG: {told['no_dicom_seg']}")
    show({"folder": str(target), **told}, *said)


def _version(name: str, workspace: Any) -> tuple[str, Path]:
    """The dataset's name and the folder of its version in the workspace; UsageError where there is none."""
    from infra.errors import UsageError
    from pipelines.plan import known_dataset

    place = _existing(workspace)
    dataset = known_dataset(name, place.cards)
    if not (place.data / dataset / "dataset.json").is_file():
        msg = f"{place.data / dataset}: no dataset version here. Run: segfoundry data ingest {dataset}"
        raise UsageError(msg)
    return dataset, place.data / dataset


def _existing(option: Any) -> Any:
    from infra.settings import resolve_workspace
    from pipelines.workspace import Workspace

    return Workspace.existing(resolve_workspace(option, "default"))
