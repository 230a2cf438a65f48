"""One run of the benchmark: ways take turns, and the document says what came of it."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch._inductor.config

from training.bench.device import PeakMemory, chosen, describe, peak_flops
from training.bench.flops import step_flops
from training.bench.ways import PARTS, PlainWay, Tally, UnpackedWay, Way, variant
from training.bench.workload import MADE_UP, Workload, make_up
from training.memory_plan import Step, plan
from training.module import Sam3Training
from training.recipes import RECIPES, Recipe
from training.sam3 import sizes
from training.sam3.activation_checkpointing import PARTS as PARTS_OF_MODEL
from training.sam3.activation_checkpointing import parts_of
from training.sam3.init import initialise
from training.sam3.model import PromptableSam3

OURS, PLAIN = "ours", "plain"
UNPACKED = "unpacked"
VARIANTS: dict[str, dict[str, Any]] = {
    UNPACKED: {},
    "recomputed": {"checkpoint_parts": tuple(PARTS_OF_MODEL), "compile": False},
    "compiled": {"checkpoint_parts": (), "compile": True},
}
"""Ours with a forward a prompt, with every part recomputed in the backward pass, and under torch.compile."""
_PROFILED_STEPS = 2
_PROFILE_ROWS = 40


@dataclass(frozen=True)
class Options:
    """What is measured."""

    recipe: str = "tiny"
    model_size: str = "small"
    image_size: int = 0  # pixels; 0: the size's own
    batch: int = 4  # images
    prompts: int = 4  # an image
    precision: str = "fp32"
    checkpoint_parts: tuple[str, ...] = ()
    compile: bool = False
    freeze: tuple[str, ...] = ()
    optimiser: Literal["adamw", "muon", ""] = ""  # empty: the recipe's
    steps: int = 3  # a repetition
    repetitions: int = 3
    variants: tuple[str, ...] = ()  # of VARIANTS: each as a way of its own
    plain: bool = True  # measure the plain way too
    device: str = "auto"
    data: str = ""  # folder of dataset versions; empty: made-up pictures
    datasets: tuple[str, ...] = ()
    profile: str = ""  # file


def resolved(options: Options) -> Recipe:
    """The recipe at the size that is asked for."""
    sam3, image_size = sizes.named(options.model_size, options.image_size)
    recipe = RECIPES[options.recipe]()
    return replace(
        recipe,
        sam3=sam3,
        image_size=image_size,
        mask_size=4 * (image_size // sam3["vision_config"]["backbone_config"]["patch_size"]),
        global_batch=options.batch,
        prompts_per_image=options.prompts,
        most_visits=0,
        checkpoint_parts=parts_of(options.checkpoint_parts),
        compile=options.compile,
        freeze=options.freeze,
        optimiser=options.optimiser or recipe.optimiser,
    )


def run(options: Options, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure and return the document; `tell` hears what is being done."""
    device = chosen(options.device)
    machine = describe(device)
    recipe = resolved(options)
    with tempfile.TemporaryDirectory(prefix="segfoundry-bench-") as folder:
        data, datasets = Path(options.data), list(options.datasets)
        if not options.data:
            data, datasets = Path(folder), [MADE_UP]
            make_up(data, recipe.image_size, options.prompts)
        elif not datasets:
            datasets = sorted(path.parent.name for path in data.glob("*/dataset.json"))
        tell("preparing samples")
        workload = Workload(recipe, data, datasets, Path(folder) / "work")
        if options.compile or "compiled" in options.variants:
            # what an earlier run left in the cache would make the first step look cheap
            torch._inductor.config.force_disable_caches = True
        ways, recipes = _ways(options, recipe, workload, device)
        memory = PeakMemory(device)
        tallies: dict[str, list[Tally]] = {name: [] for name in ways}
        peaks, added = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)
        first: dict[str, float] = {}
        for name, way in ways.items():
            tell(f"{name}: first step")
            # allocations, kernel choice and compilation are no part of the figures
            first[name] = way.run(1).total
        for repetition in range(options.repetitions):
            order = list(ways)
            for name in order[repetition % len(order) :] + order[: repetition % len(order)]:
                tell(f"repetition {repetition + 1} of {options.repetitions}: {name}")
                memory.restart()
                tallies[name].append(ways[name].run(options.steps))
                peaks[name], added[name] = max(peaks[name], memory.read()), max(added[name], memory.added())
        tell("counting operations")
        flops = step_flops(recipe, next(workload.batches()))
        peak = peak_flops(device, options.precision)
        if options.profile:
            _profile(ways[OURS], Path(options.profile))
        return {
            "asked": {
                "recipe": options.recipe,
                "model_size": options.model_size,
                "image_size": recipe.image_size,
                "batch": options.batch,
                "prompts_per_image": options.prompts,
                "precision": options.precision,
                "optimiser": recipe.optimiser,
                "freeze": list(recipe.freeze),
                "steps": options.steps,
                "repetitions": options.repetitions,
                "data": datasets if options.data else "made up",
            },
            "parameters": sum(value.numel() for value in ways[OURS].module.model.parameters()),
            "tokenizer": workload.tokenizer_name,
            "machine": {**machine, "load_after": round(os.getloadavg()[0], 2)},
            "flops": {"per_step": flops, "how": "torch.utils.flop_counter, forward and backward, vision once an image"},
            "peak": peak,
            "peak_memory_how": memory.how,
            "ways": {
                name: {
                    "checkpoint_parts": list(recipes[name].checkpoint_parts) if name in recipes else [],
                    "compile": recipes[name].compile if name in recipes else False,
                    **_figures(found, flops / peak["flop_per_s"]),
                    "first_step_s": first[name],
                    "peak_memory_bytes": peaks[name],
                    "added_in_a_step_bytes": added[name],
                    "kept_for_backward_bytes": _kept(name, recipes[name], options, device) if name in recipes else None,
                }
                for name, found in tallies.items()
            },
            "ours_over": {
                name: _spread([_prompts(own) / _prompts(it) for own, it in zip(tallies[OURS], found, strict=True)])
                for name, found in tallies.items()
                if name != OURS
            },
            "prompts_per_s_over_plain": {
                name: _spread(
                    [_prompts(own) / _prompts(plain) for own, plain in zip(found, tallies[PLAIN], strict=True)]
                )
                for name, found in tallies.items()
                if name != PLAIN and PLAIN in tallies
            },
        }


def _ways(
    options: Options, recipe: Recipe, workload: Workload, device: torch.device
) -> tuple[dict[str, Way], dict[str, Recipe]]:
    model = PromptableSam3(_config(recipe)).to(device)
    initialise(model, recipe.seed)
    module = Sam3Training(replace(recipe, compile=False), model).to(device).train()
    optimiser = module.configure_optimizers()["optimizer"]
    base = Way(OURS, module, optimiser, workload.batches(), options.precision)
    if recipe.compile:
        model.compile_stages()
    ways: dict[str, Way] = {OURS: base}
    recipes = {OURS: recipe}
    for name in options.variants:
        recipes[name] = replace(recipe, **VARIANTS[name])
        kind = UnpackedWay if name == UNPACKED else Way
        ways[name] = variant(name, base, recipes[name], workload.batches(), kind)
    if options.plain:
        ways[PLAIN] = PlainWay(PLAIN, base, workload.batches())
    return ways, recipes


def _config(recipe: Recipe) -> Any:
    from transformers.models.sam3.configuration_sam3 import Sam3Config

    return Sam3Config(**recipe.sam3)


def _prompts(tally: Tally) -> float:
    return tally.prompts / tally.total


def _figures(tallies: list[Tally], seconds_at_peak: float) -> dict[str, Any]:
    steps = sum(tally.steps for tally in tallies)
    return {
        "images_per_s": _spread([tally.images / tally.total for tally in tallies]),
        "prompts_per_s": _spread([_prompts(tally) for tally in tallies]),
        "step_s": _spread([tally.total / tally.steps for tally in tallies]),
        "seconds_per_step": {part: sum(tally.seconds[part] for tally in tallies) / steps for part in PARTS},
        "model_flop_utilisation": _spread([seconds_at_peak * tally.steps / tally.total for tally in tallies]),
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _kept(name: str, recipe: Recipe, options: Options, device: torch.device) -> int:
    """Bytes that a forward pass of a way keeps, by the memory plan."""
    return plan(
        Step(
            recipe.sam3,
            recipe.image_size,
            options.batch,
            1 if name == UNPACKED else options.prompts,
            options.precision,
            recipe.checkpoint_parts,
            freeze=recipe.freeze,
            kernels=device.type,
        )
    ).activations


def _profile(way: Way, file: Path) -> None:
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if way.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds, record_shapes=False) as profiler:
        way.run(_PROFILED_STEPS)
    order = f"self_{way.device.type}_time_total"
    file.write_text(profiler.key_averages().table(sort_by=order, row_limit=_PROFILE_ROWS))
