"""What each switch of a recipe is worth, measured on validation data at a small size on a CPU.

    python -m training.ablation --data DATA --out docs/ablation.md

trains the base recipe and, one at a time, the base with one thing changed, all for the same steps with the same
seeds, and writes a table. A run leaves a JSON in `--results`; what is there already is not run again, and a result
belongs to its recipe, its data and the code. Test splits are never read.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import SegfoundryError, UsageError
from infra.storage import digest_of, read_json, write_json, write_text
from preprocessing import schema
from training.ablation_switches import BASE, SWITCHES, Switch
from training.recipes import RECIPES, Recipe, code_sha256

VAL_SAMPLES = 64  # of each dataset
MEASURE = "1"  # of this file: another number where `run_one` measures something else


def usable(data_root: Path, names: Iterable[str] = ()) -> list[str]:
    """Datasets to train on: the named ones, or all below `data_root` with training samples and no external set."""
    found = list(names) or sorted(path.parent.name for path in data_root.glob(f"*/{schema.DATASET_FILE}"))
    records = {name: schema.read_dataset_file(data_root / name) for name in found}
    kept = [
        name for name, record in records.items() if record["splits"].get("train") and not record.get("evaluation_only")
    ]
    if not kept or not any(records[name]["splits"].get("val") for name in kept):
        msg = f"{data_root}: expected datasets with training and validation samples, found {', '.join(found) or 'none'}"
        raise UsageError(msg)
    return kept


def run_one(recipe: Recipe, data_root: Path, datasets: list[str], run_dir: Path) -> dict[str, Any]:
    """Train once, ask the validation split by text, and return its figures.

    Masks are cut at 0.5 and not gated by presence, so that *where* and *whether* are judged apart.
    """
    import lightning
    import torch

    from training.decision import Decision
    from training.distributed import precision_of
    from training.evaluate import evaluate_shard
    from training.fit import fit
    from training.measure import places
    from training.predict import Segmenter
    from training.prepared import Part, shards_of
    from training.sam3.tokenizer import PromptTokenizer
    from training.spec import FitSpec
    from training.summary import summarise

    def make_trainer(callbacks: list[lightning.Callback]) -> lightning.Trainer:
        return lightning.Trainer(
            max_steps=recipe.steps,
            max_epochs=-1,
            accelerator="cpu",
            callbacks=callbacks,
            gradient_clip_val=recipe.clip_norm,
            precision=precision_of(recipe, on_gpu=False),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    began = time.monotonic()
    spec = FitSpec(recipe, str(data_root), datasets, str(run_dir))
    module = fit(spec, rank=0, world_size=1, barrier=lambda: None, make_trainer=make_trainer).module
    seconds = time.monotonic() - began
    model = module.model
    with torch.no_grad():
        model.load_state_dict(module.averaged_state(), strict=True)
    segmenter = Segmenter(
        model.eval(), PromptTokenizer.from_installed(), recipe.image_size, Decision(), neighbours=recipe.neighbours
    )
    rows: list[dict[str, Any]] = []
    for place in places(data_root, datasets, "val", VAL_SAMPLES):
        shard = shards_of(data_root, place["dataset"])[place["shard"]]
        part = Part(place["part"], place["of"])
        rows += evaluate_shard(segmenter, shard, "val", part, model="after", prompts=("text",))
    modalities = {name: schema.read_dataset_file(data_root / name)["modality"] for name in datasets}
    measured = summarise(rows, modalities)
    return {
        "dice": measured["summary"]["dice_text_after"],
        "absent": measured["summary"]["score_absent"],
        "datasets": {
            name: {"dice": part["dice_text_after"], "absent": part["score_absent"]}
            for name, part in measured["datasets"].items()
        },
        "calibration": calibration_errors(rows),
        "skipped": module.skipped,
        "seconds": seconds,
    }


def calibration_errors(rows: list[dict[str, Any]]) -> dict[str, float] | None:
    """Expected calibration error of presence before and after Platt scaling, each half judged by the other's fit.

    Halves are of groups (patients), so that no one is on both sides; None where a half has no group.
    """
    from training.calibration import expected_calibration_error, platt

    groups = sorted({(row["dataset"], row["group_id"]) for row in rows})
    half_of = {group: number % 2 for number, group in enumerate(groups)}
    halves = np.array([half_of[row["dataset"], row["group_id"]] for row in rows])
    if set(halves.tolist()) != {0, 1}:
        return None
    said = np.clip(np.array([row["presence"] for row in rows], dtype=np.float64), 1e-7, 1 - 1e-7)
    there = np.array([row["present"] for row in rows])
    logits = np.log(said / (1 - said))
    mended = np.empty_like(said)
    for half in (0, 1):
        scale, shift = platt(logits[halves != half], there[halves != half])
        mended[halves == half] = 1 / (1 + np.exp(-(scale * logits[halves == half] + shift)))
    return {
        "before": expected_calibration_error(said, there),
        "after": expected_calibration_error(mended, there),
    }


def result_file(folder: Path, switch: Switch, recipe: Recipe, digests: dict[str, str]) -> Path:
    """Where a run's figures lie; another recipe, data version or code is another file."""
    key = digest_of(
        {"recipe": asdict(recipe), "datasets": digests, "code": code_sha256(), "measure": [MEASURE, VAL_SAMPLES]}
    )[:16]
    return folder / f"{switch.name}-{recipe.seed}-{key}.json"


def table(results: dict[str, list[dict[str, Any]]], switches: Sequence[Switch]) -> str:
    """Markdown rows: mean and range over the seeds, and what the change brought, seed by seed."""
    lines = [
        "| change | Dice | brought | absent score | brought | seconds a run |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    base = results[BASE.name]
    for switch in switches:
        runs = results[switch.name]
        cells = [switch.words]
        for figure in ("dice", "absent"):
            cells.append(_spread([run[figure] for run in runs], "{:.3f}"))
            pairs = [
                (run[figure], reference[figure])
                for run, reference in zip(runs, base, strict=True)
                if run[figure] is not None and reference[figure] is not None
            ]
            cells.append("" if switch == BASE else _spread([a - b for a, b in pairs], "{:+.3f}"))
        cells.append(f"{np.mean([run['seconds'] for run in runs]):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    middle = form.format(float(np.mean(known)))
    return middle if len(known) == 1 else f"{middle} ({form.format(min(known))} … {form.format(max(known))})"


def page(
    results: dict[str, list[dict[str, Any]]],
    switches: Sequence[Switch],
    recipe: Recipe,
    command: str,
    datasets: list[str],
) -> str:
    """The whole Markdown page."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "lightning", "numpy"))
    base = results[BASE.name]
    own = [run["dice"] for run in base if run["dice"] is not None]
    errors = [run["calibration"] for run in base if run["calibration"]]
    lines = [
        "# What each switch is worth",
        "",
        f"Validation split of {len(datasets)} sample datasets, text prompts, mean over datasets (at most {VAL_SAMPLES} "
        f"samples of each). The base is the recipe `{recipe.name}`; each row changes one thing and nothing else. "
        f"{recipe.steps} steps each, {len(base)} seeds; a cell gives the mean over seeds and, in brackets, the lowest "
        "and the highest; *brought* is the difference to the base, seed by seed. Masks are cut at 0.5 and not gated by "
        "presence; the absent score is lower the better. Test splits were not read.",
        "",
        f"The base's own Dice spans {max(own) - min(own):.3f} from seed to seed: a smaller difference says nothing. "
        "What a few hundred steps from nothing show need not hold for a pretrained model.",
        "",
        table(results, switches),
        "",
    ]
    if errors:
        before, after = (_spread([part[when] for part in errors], "{:.3f}") for when in ("before", "after"))
        lines += [
            f"Presence calibration changes no weights: on the base runs, expected calibration error {before} "
            f"before and {after} after, each half of the groups judged by the other half's fit.",
            "",
        ]
    lines += [
        f"Machine: {platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}; Python "
        f"{platform.python_version()}, {packages}. Datasets: {', '.join(datasets)}.",
        "",
        f"    {command}",
        "",
    ]
    return "\n".join(lines)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.ablation", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of dataset versions")
    parser.add_argument("--datasets", nargs="*", default=[], help="names; all with training samples by default")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument(
        "--results", type=Path, default=Path(".segfoundry/ablation"), help="folder of the runs' figures"
    )
    parser.add_argument("--recipe", default="tiny", choices=sorted(RECIPES))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8])
    parser.add_argument("--switches", nargs="*", default=[switch.name for switch in SWITCHES])
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as torch chooses")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="", help="default: as the recipe says")
    found = parser.parse_args(argv)
    unknown = sorted(set(found.switches) - {switch.name for switch in SWITCHES})
    if unknown:
        parser.error(
            f"--switches: expected some of {', '.join(switch.name for switch in SWITCHES)}, found {unknown[0]}"
        )
    return found


def main(argv: Sequence[str]) -> int:
    """Run what is missing and write the page; 0 where all is well."""
    asked = _arguments(argv)
    import torch

    if asked.threads:
        torch.set_num_threads(asked.threads)
    data_root = asked.data.resolve()
    datasets = usable(data_root, asked.datasets)
    digests = {name: schema.read_dataset_file(data_root / name)["manifest_digest"] for name in datasets}
    switches = (BASE, *(switch for switch in SWITCHES if switch.name in asked.switches))
    base = replace(RECIPES[asked.recipe](), steps=asked.steps)
    if asked.precision:
        base = replace(base, precision=asked.precision)
    results: dict[str, list[dict[str, Any]]] = {switch.name: [] for switch in switches}
    # seed by seed: a run that is broken off leaves whole comparisons behind
    for seed in asked.seeds:
        for switch in switches:
            recipe = switch.applied(replace(base, seed=seed))
            file = result_file(asked.results, switch, recipe, digests)
            if not file.is_file():
                write_json(file, run_one(recipe, data_root, datasets, asked.results / "prepared"))
            found = read_json(file)
            results[switch.name].append(found)
            sys.stderr.write(f"{switch.name} seed {seed}: Dice {found['dice']}, absent {found['absent']}\n")
    # where things lie on this machine is no one's business
    hidden = {"--data": "DATA", "--results": "RESULTS"} | ({"--out": asked.out.name} if asked.out.is_absolute() else {})
    words = [hidden.get(before, word) for before, word in zip(["", *argv], argv, strict=False)]
    command = "python -m training.ablation " + shlex.join(words)
    write_text(asked.out, page(results, switches, base, command, datasets))
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except SegfoundryError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from error
