"""Plausible candidate, evaluation and dataset files, as training and preprocessing would write them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infra.storage import digest_of, sha256_file, write_json
from registry.lineage import build_lineage

ENGINES = Path(__file__).parent / "engines"
PROMPTS = ["bright spot", "vessel"]

# name, modality, licence, cases found, quarantined, samples, concept -> (before, after, box), as made up
Figures = tuple[float, float, float]
_DATASETS: list[tuple[str, str, str, int, int, int, dict[str, Figures | None]]] = [
    ("MSD_Hippocampus", "MRI", "CC-BY-SA-4.0", 26, 2, 210,
     {"hippocampus": (0.11, 0.52, 0.74), "hippocampus head": (0.08, 0.41, 0.66)}),
    ("dcmqi", "CT", "CC-BY-3.0", 3, 0, 14, {"liver": (0.22, 0.47, 0.81), "lung lesion": (0.02, 0.19, 0.55)}),
    ("CHASE_DB1", "fundus photography", "CC-BY-4.0", 28, 0, 28, {"retinal vessel": (0.13, 0.31, 0.38)}),
    ("Kvasir-SEG", "endoscopy", "research and education only", 60, 1, 59, {"polyp": (0.24, 0.49, 0.83)}),
    ("BUSI", "ultrasound", "CC0-1.0", 52, 0, 52,
     {"breast tumour": (0.16, 0.36, 0.79), "benign tumour": (0.15, 0.33, 0.78)}),
    ("DSB2018", "microscopy", "CC0-1.0", 40, 3, 37, {"nucleus": (0.28, 0.66, 0.71)}),
    ("ISIC2017", "dermoscopy", "CC0-1.0", 45, 0, 45, {"skin lesion": (0.31, 0.71, 0.88)}),
    ("Sunnybrook", "cine MRI", "CC0-1.0", 6, 0, 12, {"left ventricle": None}),
]  # fmt: skip


def write_candidate(folder: Path, *, threshold: float = 100.0, steps: int = 240) -> Path:
    """`models/candidate/` with the threshold engine."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    save_file({"thresholds": np.array([threshold, threshold / 2], dtype=np.float32)}, folder / "model.safetensors")
    save_file({"thresholds": np.array([250.0, 250.0], dtype=np.float32)}, folder / "start.safetensors")
    recipe = {"name": "tiny", "optimizer": {"learning_rate": 0.001, "weight_decay": 0.01}, "image_px": 112}
    write_json(folder / "config.json", {"engine": "threshold_engine:Segmenter", "prompts": PROMPTS, "recipe": recipe})
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history(steps)))
    write_json(
        folder / "train.json",
        {
            "recipe": recipe,
            "seed": 7,
            "steps": steps,
            "workers": 2,
            "parameters": 4_812_331,
            "datasets": {card["dataset"]: card["manifest_digest"] for card in datasets()},
            "weights_sha256": sha256_file(folder / "model.safetensors"),
            "start_sha256": sha256_file(folder / "start.safetensors"),
        },
    )
    return folder


def history(steps: int) -> list[dict[str, Any]]:
    """A training curve that falls, with noise that is always the same."""
    noise = np.random.default_rng(7)
    lines = []
    for step in range(1, steps + 1):
        fall = math.exp(-step / (steps / 3))
        jitter = noise.normal(0, 0.05, 3)
        parts = {"loss_boxes": 0.4 + 1.1 * fall, "loss_masks": 0.5 + 1.6 * fall, "loss_presence": 0.1 + 0.5 * fall}
        named = {name: max(0.02, value + float(jitter[at])) for at, (name, value) in enumerate(parts.items())}
        rate = 1e-3 * min(1, step / 20)
        lines.append({"step": step, "loss": sum(named.values()), "samples": step * 8, "learning_rate": rate, **named})
    return lines


def datasets() -> list[dict[str, Any]]:
    """`dataset.json` contents, with where each came from."""
    cards = []
    for name, modality, licence, found, quarantined, samples, _ in _DATASETS:
        spdx = {"spdx": licence} if not licence.startswith("research") else {"terms": licence}
        cards.append(
            {
                "schema": "1",
                "dataset": name,
                "title": name.replace("_", " "),
                "modality": modality,
                "licence": {**spdx, "redistribution": True, "commercial": "CC" in licence},
                "citation": f"The {name} authors, 2018",
                "source_kind": "phantom" if name == "Sunnybrook" else "mirror",
                "counts": {"cases_found": found, "cases_kept": found - quarantined, "cases_quarantined": quarantined,
                           "samples": samples, "objects": samples * 2, "files_found": found * 2,
                           "files_used": (found - quarantined) * 2, "files_quarantined": quarantined,
                           "files_not_data": 1},
                "splits": {"train": samples - 2 * (samples // 7), "val": samples // 7, "test": samples // 7},
                "manifest_digest": digest_of([name, samples]),
                "recipe_sha256": digest_of(name),
                "shards": {"shard-00000.parquet": {"sha256": digest_of([name, "shard"]), "rows": samples}},
            }
        )  # fmt: skip
    return cards


def evaluation(weights_sha256: str, start_sha256: str, *, change: dict[str, float] | None = None) -> dict[str, Any]:
    """An `evaluation.json`; `change` moves a dataset's text Dice after training."""
    entries: dict[str, Any] = {}
    for name, modality, _, _, _, samples, concepts in _DATASETS:
        shift = (change or {}).get(name, 0.0)
        figures = {concept: value for concept, value in concepts.items() if value is not None}
        numbers = np.array(list(figures.values()), dtype=float)
        before, after, box = (round(float(value), 4) for value in numbers.mean(axis=0)) if figures else (None,) * 3
        entries[name] = {
            "modality": modality,
            "samples": samples // 7 if figures else 0,
            "dice_text_before": before,
            "dice_text_after": None if after is None else after + shift,
            "dice_box_after": box,
            "iou_text_after": None if after is None else round(after / (2 - after), 4),
            "score_present": 0.71 if figures else None,
            "score_absent": 0.12 if figures else None,
            "absent_pairs": samples // 3 if figures else 0,
            "concepts": {
                concept: {
                    "pairs": samples // 7 if value else 0,
                    "dice_text_before": value[0] if value else None,
                    "dice_text_after": value[1] + shift if value else None,
                    "dice_box_after": value[2] if value else None,
                }
                for concept, value in concepts.items()
            },
        }
    summary: dict[str, Any] = {
        figure: float(np.mean([one[figure] for one in entries.values() if one[figure] is not None]))
        for figure in ("dice_text_before", "dice_text_after", "dice_box_after", "score_absent", "score_present")
    }
    summary |= {"score_absent_before": 0.48, "samples": sum(one["samples"] for one in entries.values())}
    return {
        "schema": "1",
        "split": "test",
        "manifest_digests": {card["dataset"]: card["manifest_digest"] for card in datasets()},
        "weights_sha256": weights_sha256,
        "start_sha256": start_sha256,
        "prompts": {"text": {"privileged": False}, "box": {"privileged": True}},
        "summary": summary,
        "datasets": entries,
    }


def write_evaluation(
    folder: Path, candidate: Path, *, change: dict[str, float] | None = None, pictures: int = 2
) -> Path:
    """`evaluation/` of a candidate, with overlay pictures."""
    (folder / "overlays").mkdir(parents=True)
    train = json.loads((candidate / "train.json").read_text())
    write_json(folder / "evaluation.json", evaluation(train["weights_sha256"], train["start_sha256"], change=change))
    entries = []
    for number, (name, modality, _, _, _, _, concepts) in enumerate(_DATASETS[:pictures]):
        concept, value = next(iter(concepts.items()))
        file = f"overlays/{name}-{number}.png"
        Image.fromarray(overlay(number)).save(folder / file)
        before, after = (value[0], value[1]) if value else (None, None)
        entries.append({"file": file, "dataset": name, "modality": modality, "sample_id": f"{name}/case{number}/z7",
                        "concept": concept, "dice_before": before, "dice_after": after})  # fmt: skip
    write_json(folder / "overlays.json", entries)
    return folder


def overlay(seed: int) -> np.ndarray:
    """Image, truth and prediction side by side: uint8 (112, 336, 3)."""
    size = 112
    y, x = np.mgrid[:size, :size]
    noise = np.random.default_rng(seed)
    cy, cx = noise.integers(40, 72, 2)
    distance = np.hypot((y - cy) / 1.3, x - cx)
    grey = np.clip(70 + 110 * np.exp(-((distance / 26) ** 2)) + noise.normal(0, 9, (size, size)), 0, 255)
    panels = []
    for radius, colour in ((0, (0, 0, 0)), (24, (64, 200, 120)), (21, (240, 150, 60))):
        panel = np.repeat(grey[:, :, None], 3, axis=2)
        inside = distance < radius
        panel[inside] = 0.55 * panel[inside] + 0.45 * np.array(colour)
        panels.append(panel)
    return np.concatenate(panels, axis=1).astype(np.uint8)


def lineage(candidate: Path, evaluation_folder: Path, **changes: Any) -> dict[str, Any]:
    """The lineage of a candidate made from all the sample datasets."""
    given = {"data_version": "data-v1", "data_commit": "c0ffee" * 6, "code_commit": "0badf00d" * 5, **changes}
    return build_lineage(candidate, evaluation_folder, datasets(), **given)


def picture() -> np.ndarray:
    """A dark image with one bright square of 10 x 20 px: uint8 (48, 64, 3)."""
    image = np.full((48, 64, 3), 20, dtype=np.uint8)
    image[12:22, 30:50] = 220
    return image
