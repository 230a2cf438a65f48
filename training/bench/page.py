"""`python -m training.bench.page docs/benchmarks-training.md`: measure, plan, and write the page of figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.storage import write_text
from training.bench.run import OURS, VARIANTS, Options, run
from training.memory_plan import GIB, Step, document
from training.sam3 import sizes
from training.sam3.activation_checkpointing import parts_of

MIB = 2**20
PLANS: tuple[tuple[int, int, str], ...] = (
    (1, 1, ""),
    (1, 1, "vision,text"),
    (1, 4, "all"),
    (4, 4, ""),
    (4, 4, "vision,text"),
    (4, 4, "all"),
    (8, 4, "all"),
)
"""Images, prompts an image, parts recomputed."""

HEAD = """# Training: speed and memory

Written by `python -m training.bench.page docs/benchmarks-training.md` on {date}. {machine}

The machine was shared ({load} runnable processes before the start): seconds vary, and the ratios, taken between runs
that follow each other, are what to hold on to.
"""

SPEED = """
## Speed

`python -m training.bench {command}`: a SAM3 of {parameters:.1f} million parameters at {image_size} pixels,
{batch} images a step with {prompts} prompts each, {precision}, {optimiser}; a step is data, forward, losses, backward,
clipping, optimiser and average of the weights. All ways share weights, optimiser and batches and take turns,
{repetitions} times {steps} steps.

`plain` is transformers' `Sam3Model` with one prompt an image and forward, so that the vision encoder runs again for
every prompt; `ours` packs prompts: vision once an image, the head once a prompt. `recomputed`, where it
is a row, is `ours` with all parts checkpointed, `compiled` is `ours` under `torch.compile`.

"""

SPEED_COLUMNS = (
    "way",
    "prompts/s (min – max)",
    "over plain, median (min – max)",
    "data",
    "forward",
    "backward",
    "optimiser",
    "model FLOP utilisation",
    "kept for backward",
)

UTILISATION = """
Columns `data` to `optimiser` are seconds a step. Utilisation: {flops:.1f} GFLOP a step (vision once an image, nothing
twice, for every way) against {peak:.0f} GFLOP/s ({how}). Kept for backward: activations by the memory plan. Highest
memory of the process, which holds the weights of all ways once: {memory:.0f} MiB.
"""

MEMORY = """
## Memory of the full model at 1008 pixels

`python -m training.memory_plan --model-size full`: the real model under FakeTensorMode, bf16 autocast, AdamW, with an
average of the weights, masks on, CUDA's attention kernels. {parameters:.1f} million parameters; weights
{weights:.2f}, gradients {gradients:.2f}, optimiser {optimiser:.2f} and average {average:.2f} GiB in fp32 (formula:
weights {formula_weights:.2f}, optimiser {formula_optimiser:.2f}). Kernel workspaces and the allocator's fragments come
on top.

"""

MEMORY_COLUMNS = (
    "images × prompts",
    "recomputed",
    "kept activations, GiB",
    "bf16 copies of weights, GiB",
    "highest in backward, GiB",
    "highest in the optimiser, GiB",
)


def speed_section(found: dict[str, Any], command: str) -> str:
    """Markdown of a document of `training.bench`."""
    asked = found["asked"]
    lines = [
        SPEED.format(
            command=command,
            parameters=found["parameters"] / 1e6,
            image_size=asked["image_size"],
            batch=asked["batch"],
            prompts=asked["prompts_per_image"],
            precision=asked["precision"],
            optimiser=asked["optimiser"],
            repetitions=asked["repetitions"],
            steps=asked["steps"],
        ),
        _heading(SPEED_COLUMNS),
    ]
    for name, way in found["ways"].items():
        rate, ratio = way["prompts_per_s"], found["prompts_per_s_over_plain"].get(name)
        over = f"{ratio['median']:.2f} × ({ratio['min']:.2f} – {ratio['max']:.2f})" if ratio else "–"
        parts = " | ".join(f"{seconds:.3f}" for seconds in way["seconds_per_step"].values())
        kept = way["kept_for_backward_bytes"]
        lines.append(
            f"| {name} | {rate['median']:.2f} ({rate['min']:.2f} – {rate['max']:.2f}) | {over} | {parts} "
            f"| {way['model_flop_utilisation']['median']:.1%} | {f'{kept / MIB:.0f} MiB' if kept else '–'} |\n"
        )
    lines.append(
        UTILISATION.format(
            flops=found["flops"]["per_step"] / 1e9,
            peak=found["peak"]["flop_per_s"] / 1e9,
            how=found["peak"]["how"],
            memory=max(way["peak_memory_bytes"] for way in found["ways"].values()) / MIB,
        )
    )
    return "".join(lines)


def memory_section(plans: Iterable[tuple[tuple[int, int, str], dict[str, Any]]]) -> str:
    """Markdown of documents of `training.memory_plan`."""
    lines: list[str] = []
    for (images, prompts, parts), found in plans:
        have = {name: value / GIB for name, value in found["bytes"].items()}
        if not lines:
            lines.append(
                MEMORY.format(
                    parameters=found["bytes"]["parameters"] / 1e6,
                    weights=have["weights"],
                    gradients=have["gradients"],
                    optimiser=have["optimiser"],
                    average=have["average"],
                    formula_weights=found["formula_bytes"]["weights"] / GIB,
                    formula_optimiser=found["formula_bytes"]["optimiser_adamw"] / GIB,
                )
            )
            lines.append(_heading(MEMORY_COLUMNS))
        lines.append(
            f"| {images} × {prompts} | {parts.replace(',', ', ') or '–'} | {have['activations']:.2f} "
            f"| {have['weight_copies']:.2f} | {have['peak_backward']:.1f} | {have['peak_optimiser']:.1f} |\n"
        )
    return "".join(lines)


def _heading(columns: tuple[str, ...]) -> str:
    return f"| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|\n"


def page(options: Options, command: str) -> str:
    """The whole page; takes minutes."""
    found = run(options, lambda line: _say(line))
    sam3, image_size = sizes.named("full")
    base = Step(sam3, image_size, 1, 1)
    plans = []
    for images, prompts, parts in PLANS:
        _say(f"memory plan: {images} images, {prompts} prompts, {parts or 'nothing'} recomputed")
        step = replace(base, batch=images, prompts=prompts, checkpoint_parts=parts_of(parts.split(",")))
        plans.append(((images, prompts, parts), document(step)))
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    head = HEAD.format(
        date=datetime.now(UTC).date().isoformat(),
        machine=f"{machine['name']}, {machine['threads']} thread(s); {versions}.",
        load=machine["load_before"],
    )
    return head + speed_section(found, command) + memory_section(plans)


def _say(line: str) -> None:
    sys.stderr.write(f"bench: {line}\n")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.bench.page", description=__doc__)
    parser.add_argument("out", type=Path, help="the page, replaced")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="of ours, comma-separated; all by default")
    given = parser.parse_args(arguments)
    variants = tuple(part for part in given.variants.split(",") if part)
    wrong = [name for name in variants if name not in VARIANTS]
    if wrong:
        parser.error(f"--variants: expected some of {', '.join(VARIANTS)}, found {', '.join(wrong)}")
    options = Options(model_size="small", optimiser="adamw", steps=2, repetitions=given.repetitions, variants=variants)
    table = "--table " if variants == tuple(VARIANTS) else ""
    command = f"--model-size small --optimiser adamw {table}--steps 2 --repetitions {given.repetitions}"
    write_text(given.out, page(options, command))
    _say(f"{OURS} and the other ways are in {given.out}")


if __name__ == "__main__":
    main()
