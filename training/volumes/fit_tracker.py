"""Train the tracker of a model folder on slice sequences of training volumes.

    python -m training.volumes.fit_tracker --data DATA --model MODEL --steps 300

The detector stays as it is, the ViT too: only the tracker's neck, memory and mask decoder learn. A sequence starts on
a slice with the concept, given the true mask there (elsewhere than in training the detector's own mask takes its
place), and goes on up or down through the slices beside it, with the tracker's own answers as its memory, past the
object's end where that comes. Losses are SAM 2's (arXiv:2408.00714, its appendix): focal and Dice on masks where the
object is there, cross-entropy on whether it is there, L1 on the IoU that the mask is said to have. Only the train
split is read.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from infra.errors import SegfoundryError, UsageError
from infra.storage import read_json, write_json
from preprocessing import schema
from training.decode import coverage
from training.neighbours import stacks_of_volume
from training.predict import Segmenter, to_pixel_values
from training.volumes.cases import volumes_of
from training.volumes.tracker import VolumeTracker, add_mask, backbone_states, initialise_tracker

FOCAL, DICE, OBJECT, IOU = 20.0, 1.0, 1.0, 1.0
"""Weights of the losses, as in SAM 2."""

_LEAST_CELLS = 4  # of a mask that a sequence starts with, on the model's grid
_MOST_VOLUMES = 60  # of a dataset, so that their features stay in memory
_WARMUP = 20  # steps


@dataclass
class Sequences:
    """Volumes as what the tracker is trained on."""

    states: list[Tensor]  # per volume (slices, patches, channels)
    masks: list[dict[str, Tensor]]  # per volume concept -> (slices, size, size) bool
    dataset: list[str]


def sequences_of(segmenter: Segmenter, data_root: Path, datasets: list[str]) -> Sequences:
    """The training volumes of the datasets through the shared ViT, and their masks on its grid of pixels."""
    found = Sequences([], [], [])
    size = segmenter.image_size
    for name in datasets:
        for volume in volumes_of(data_root, name, "train", most=_MOST_VOLUMES):
            seen = stacks_of_volume(volume.pixels, segmenter.neighbours, volume.indices)
            parts = [
                backbone_states(
                    segmenter.model, torch.stack([to_pixel_values(each, size) for each in seen[at : at + 8]])
                )
                for at in range(0, len(seen), 8)
            ]
            masks = {
                concept: torch.from_numpy(np.stack([coverage(plane, size) for plane in truth]) > 127)
                for concept, truth in volume.truth.items()
                if truth.any() and volume.known[concept].all()
            }
            if masks:
                found.states.append(torch.cat(parts))
                found.masks.append(masks)
                found.dataset.append(name)
    return found


def draw_sequence(sequences: Sequences, length: int, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One sequence: ViT states (slices, patches, channels) and masks (slices, size, size), in the order it is followed.

    Datasets are drawn alike, then volume, concept, starting slice and direction.
    """
    names = sorted(set(sequences.dataset))
    while True:
        name = names[int(draw.integers(len(names)))]
        volumes = [number for number, other in enumerate(sequences.dataset) if other == name]
        number = volumes[int(draw.integers(len(volumes)))]
        concepts = sorted(sequences.masks[number])
        masks = sequences.masks[number][concepts[int(draw.integers(len(concepts)))]]
        starts = torch.nonzero(masks.flatten(1).sum(1) >= _LEAST_CELLS).flatten().tolist()
        if not starts:
            continue
        start = starts[int(draw.integers(len(starts)))]
        step = 1 if draw.random() < 0.5 else -1
        places = [place for place in range(start, start + step * length, step) if 0 <= place < len(masks)]
        if len(places) > 1:
            return sequences.states[number][places], masks[places]


def sequence_loss(tracker: VolumeTracker, states: Tensor, masks: Tensor) -> Tensor:
    """Loss of one sequence, mean over the slices that are followed; the tracker is in evaluation mode, with gradients.

    transformers' own inference steps are run one by one, since its `forward` takes no gradients.
    """
    model = tracker.tracker_model
    features = tracker.features(states)
    session = tracker.session(features)
    place = add_mask(session, 0, masks[0])
    raw: list[Any] = []
    hook = model.mask_decoder.register_forward_hook(lambda module, given, out: raw.append(out))
    losses = []
    try:
        for frame in range(len(masks)):
            raw.clear()
            first = frame == 0
            out = model._run_single_frame_inference(
                inference_session=session,
                obj_idx=place,
                frame_idx=frame,
                batch_size=1,
                is_init_cond_frame=first,
                point_inputs=None,
                mask_inputs=session.mask_inputs_per_obj[place].get(frame),
                reverse=False,
            )
            session.store_output(place, frame, output_value=out, is_conditioning_frame=first)
            if not first:
                logits, iou, _, there = raw[0]
                losses.append(_slice_loss(logits[:, 0, :1], iou[:, 0, :1], there, masks[frame]))
            model._batch_encode_memories(
                inference_session=session,
                frame_idx=frame,
                objects_needing_memory_encoding=[place],
                high_res_masks_for_memory=[out["high_res_masks"]],
                object_score_logits_for_memory=[out["object_score_logits"]],
                is_mask_from_pts_per_obj=[first],
            )
    finally:
        hook.remove()
    return torch.stack(losses).mean()


def _slice_loss(logits: Tensor, iou: Tensor, there: Tensor, mask: Tensor) -> Tensor:
    """`logits` (1, 1, rows, columns), `iou` (1, 1), `there` a logit, `mask` (size, size)."""
    target = F.interpolate(mask[None, None].float(), logits.shape[-2:], mode="area")
    present = mask.any().float()
    loss = OBJECT * F.binary_cross_entropy_with_logits(there.flatten(), present[None])
    if not bool(present):
        return loss
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    right = probability * target + (1 - probability) * (1 - target)
    balance = 0.25 * target + 0.75 * (1 - target)
    focal = (balance * (1 - right) ** 2 * entropy).mean()
    dice = 1 - (2 * (probability * target).sum() + 1) / (probability.sum() + target.sum() + 1)
    with torch.no_grad():
        hard, true = logits > 0, target > 0.5
        found = (hard & true).sum() / (hard | true).sum().clamp(min=1)
    return loss + FOCAL * focal + DICE * dice + IOU * (iou.flatten() - found).abs().mean()


def fit_tracker(
    tracker: VolumeTracker,
    sequences: Sequences,
    *,
    steps: int,
    batch: int,
    length: int,
    learning_rate: float,
    seed: int,
    log: bool = False,
) -> list[float]:
    """Train in place by AdamW with a warm-up and a cosine; return the loss of every step."""
    optimiser = torch.optim.AdamW(tracker.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    history = []
    began = time.monotonic()
    tracker.eval()  # nothing is dropped out; transformers' steps leave out scores while training
    for step in range(steps):
        rate = min((step + 1) / _WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * rate
        optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for number in range(batch):
            draw = np.random.default_rng([seed, 7, step, number])
            loss = sequence_loss(tracker, *draw_sequence(sequences, length, draw)) / batch
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(tracker.parameters(), 1.0)
        optimiser.step()
        history.append(total)
        if log and (step + 1) % 20 == 0:
            seconds = time.monotonic() - began
            sys.stderr.write(f"step {step + 1}/{steps} loss {np.mean(history[-20:]):.3f} {seconds:.0f} s\n")
    return history


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.volumes.fit_tracker", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of dataset versions")
    parser.add_argument("--model", type=Path, required=True, help="model folder; the tracker's file is written into it")
    parser.add_argument("--datasets", nargs="*", default=[], help="default: those that the model was trained on")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4, help="sequences a step")
    parser.add_argument("--length", type=int, default=6, help="slices of a sequence")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    try:
        segmenter = Segmenter.load(asked.model)
        names = asked.datasets or sorted(read_json(asked.model / "train.json")["datasets"])
        kept = [name for name in names if schema.read_dataset_file(asked.data / name)["splits"].get("train")]
        sequences = sequences_of(segmenter, asked.data, kept)
        if not sequences.states:
            msg = f"{asked.data}: expected training volumes with masks, found none in {', '.join(names)}"
            raise UsageError(msg)
        tracker = VolumeTracker(segmenter.model.config)
        initialise_tracker(tracker, asked.seed)
        began = time.monotonic()
        history = fit_tracker(
            tracker,
            sequences,
            steps=asked.steps,
            batch=asked.batch,
            length=asked.length,
            learning_rate=asked.learning_rate,
            seed=asked.seed,
            log=True,
        )
    except SegfoundryError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    record = {
        "sha256": tracker.save(asked.model),
        "parameters": sum(parameter.numel() for parameter in tracker.parameters()),
        "steps": asked.steps,
        "batch": asked.batch,
        "length": asked.length,
        "learning_rate": asked.learning_rate,
        "seed": asked.seed,
        "volumes": len(sequences.states),
        "datasets": sorted(set(sequences.dataset)),
        "seconds": round(time.monotonic() - began),
        "loss": [round(float(np.mean(history[at : at + 20])), 4) for at in range(0, len(history), 20)],
    }
    write_json(asked.model / "tracker.json", record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
