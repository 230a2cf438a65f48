"""Markdown of what was measured and planned: one function for each section of the page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from training.memory_plan import GIB

MIB = 2**20

SPEED = """
## {title}

    python -m training.bench {command}

A SAM3 of {parameters:.1f} million parameters at {image_size} pixels, {batch} images a step, prompts an image:
{prompts}, {precision}, {optimiser}. A step is data, forward, losses, backward, clipping, optimiser and average of the
weights. All ways share weights, optimiser and batches and take turns, rounds: {repetitions}, steps each: {steps}.

Runnable processes: {load_before:.1f} before, {load_after:.1f} after.

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
    "first step, s",
    "kept for backward, planned",
    "added in a step, measured",
)

UTILISATION = """
Columns `data` to `optimiser` are seconds a step. Utilisation: {flops:.1f} GFLOP a step (vision once an image, nothing
twice, for every way) against {peak:.0f} GFLOP/s ({how}). Kept for backward: activations by the memory plan, of one
forward. Added in a step: how far the {memory_how} rises. Highest memory of the process, which holds the
weights of all ways once: {memory:.0f} MiB. The first step, with allocations and compilation, is in no other figure.
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


def speed_section(found: dict[str, Any], command: str, title: str = "Speed") -> str:
    """Markdown of a document of `training.bench`."""
    asked = found["asked"]
    lines = [
        SPEED.format(
            title=title,
            command=command,
            load_before=found["machine"]["load_before"],
            load_after=found["machine"]["load_after"],
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
            f"| {way['model_flop_utilisation']['median']:.1%} | {way['first_step_s']:.1f} "
            f"| {f'{kept / MIB:.0f} MiB' if kept else '–'} | {way['added_in_a_step_bytes'] / MIB:.0f} MiB |\n"
        )
    lines.append(
        UTILISATION.format(
            flops=found["flops"]["per_step"] / 1e9,
            peak=found["peak"]["flop_per_s"] / 1e9,
            how=found["peak"]["how"],
            memory_how=found["peak_memory_how"],
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


def worth_section(found: dict[str, Any]) -> str:
    """What packing, recomputing and compiling are each worth, round by round, against `ours`."""
    ways, ours = found["ways"], found["ways"]["ours"]
    rate = ours["prompts_per_s"]["median"]
    lines = ["\n### What each is worth\n\n"]
    if "unpacked" in ways:
        ratio = found["ours_over"]["unpacked"]
        lines.append(
            f"- Packing prompts: {ratio['median']:.2f} × ({ratio['min']:.2f} – {ratio['max']:.2f}) the prompts/s of "
            "the same model, loss and weights with one prompt a forward.\n"
        )
    if "recomputed" in ways:
        ratio, other = found["ours_over"]["recomputed"], ways["recomputed"]
        lines.append(
            f"- Checkpointing all parts: {1 / ratio['median']:.2f} × the speed; kept for backward "
            f"{other['kept_for_backward_bytes'] / MIB:.0f} in place of "
            f"{ours['kept_for_backward_bytes'] / MIB:.0f} MiB by the plan.\n"
        )
    if "compiled" in ways:
        ratio, other = found["ours_over"]["compiled"], ways["compiled"]
        gain = ours["step_s"]["median"] - other["step_s"]["median"]
        extra = other["first_step_s"] - ours["first_step_s"]
        paid = f"paid back after {extra / gain:,.0f} steps" if gain > 0 else "not paid back at this size"
        lines.append(
            f"- `torch.compile`: {1 / ratio['median']:.2f} × the speed once warm; its first step takes "
            f"{other['first_step_s']:.1f} s in place of {ours['first_step_s']:.1f}, {paid}.\n"
        )
    lines.append(f"\n`ours` is {rate:.2f} prompts/s, {ours['images_per_s']['median']:.2f} images/s.\n")
    return "".join(lines)


RECIPES_HEAD = """
## The recipes `paper` and `full`, a few real steps at reduced width

All layers and losses of the official architecture, {width} channels in place of 1024, {image_size} pixels, {batch}
images a step with {prompts} prompts each, each recipe's own optimiser and checkpointed parts, {precision}.

"""

RECIPE_COLUMNS = (
    "recipe",
    "parameters, millions",
    "images/s",
    "prompts/s",
    "data",
    "forward",
    "backward",
    "optimiser",
    "model FLOP utilisation",
    "highest memory, MiB",
)


def recipes_section(documents: Iterable[dict[str, Any]], width: str) -> str:
    """Markdown of documents of `training.bench`, a recipe each."""
    lines: list[str] = []
    for found in documents:
        asked, way = found["asked"], found["ways"]["ours"]
        if not lines:
            lines += [
                RECIPES_HEAD.format(
                    width=width,
                    image_size=asked["image_size"],
                    batch=asked["batch"],
                    prompts=asked["prompts_per_image"],
                    precision=asked["precision"],
                ),
                _heading(RECIPE_COLUMNS),
            ]
        parts = " | ".join(f"{seconds:.3f}" for seconds in way["seconds_per_step"].values())
        lines.append(
            f"| {asked['recipe']} | {found['parameters'] / 1e6:.1f} | {way['images_per_s']['median']:.2f} "
            f"| {way['prompts_per_s']['median']:.2f} | {parts} | {way['model_flop_utilisation']['median']:.1%} "
            f"| {way['peak_memory_bytes'] / MIB:.0f} |\n"
        )
    return "".join(lines)


LOADER_HEAD = """
## The loader beside public ones

`training/loader_bench.py`, as this page ran it: decoded tensors a second, nothing else done. {seconds:.0f} s in all.

"""
