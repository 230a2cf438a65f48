"""The overlay pictures of an evaluation: chosen pairs asked again, and drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from infra.storage import write_json
from training.loaded import segmenter
from training.spec import WEIGHTS


def write_overlays(
    folder: Path,
    rows: list[dict[str, Any]],
    base: dict[str, Any],
    spread: Callable[..., Iterable[Any]],
) -> None:
    """Write `overlays/` and `overlays.json` into an evaluation folder.

    Args:
        folder: of the evaluation.
        rows: of the evaluation.
        base: model "folder", "data_root" and "split".
        spread: maps a function over jobs, in any order.
    """
    from training.overlays import choose

    chosen = choose(rows)
    before = {
        (row["dataset"], row["sample_id"], row["concept"]): row["dice"]
        for row in rows
        if row["model"] == "before" and row["prompt"] == "text"
    }
    jobs = [
        {
            **base,
            "dataset": name,
            "pairs": [(row["sample_id"], row["concept"]) for row in chosen if row["dataset"] == name],
        }
        for name in sorted({row["dataset"] for row in chosen})
    ]
    pictures: dict[tuple[str, str, str], bytes] = {}
    for part in spread(_overlay_job, jobs):
        pictures.update(part)
    listed = []
    (folder / "overlays").mkdir()
    for number, row in enumerate(chosen):
        key = (row["dataset"], row["sample_id"], row["concept"])
        name = f"overlays/{number:03d}.png"
        (folder / name).write_bytes(pictures[key])
        listed.append(
            {
                "file": name,
                "dataset": row["dataset"],
                "modality": row["modality"],
                "sample_id": row["sample_id"],
                "concept": row["concept"],
                "dice_before": before.get(key),
                "dice_after": row["dice"],
                "shown_as": row["shown_as"],
            }
        )
    write_json(folder / "overlays.json", listed)


def _overlay_job(job: dict[str, Any]) -> dict[tuple[str, str, str], bytes]:
    from training.evaluate import truth_of
    from training.neighbours import pictures
    from training.overlays import triptych
    from training.prepared import decode_image, rows_of, shards_of

    model = segmenter(job["folder"], WEIGHTS)
    wanted = {tuple(pair) for pair in job["pairs"]}
    samples = {sample for sample, _ in wanted}
    drawn = {}
    for shard in shards_of(Path(job["data_root"]), job["dataset"]):
        picture = pictures(shard, job["split"], model.neighbours, model.preprocessing)
        for row in rows_of(shard, job["split"]):
            if row["sample_id"] not in samples:
                continue
            seen, pixels = picture(row, None), decode_image(row["image"])
            for concept in sorted(concept for sample, concept in wanted if sample == row["sample_id"]):
                found = model.segment(seen, [concept])[0]
                drawn[job["dataset"], row["sample_id"], concept] = triptych(
                    pixels, truth_of(row, concept), found["mask"]
                )
    return drawn
