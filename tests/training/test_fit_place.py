"""A real Lightning run over a stream of shards: killed, and gone on from its checkpoint."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from infra.errors import DataError
from tests.training.made import write_dataset
from training.fit import STREAM_STATE, fit
from training.recipes import tiny
from training.spec import FitSpec, LoaderSettings

pytestmark = pytest.mark.slow
SAMPLES, BATCH, STEPS, SAVED = 24, 4, 6, 4


class Watch(lightning.Callback):
    """Notes what was trained on; saves at step `SAVED` and dies one step later where it is told to."""

    def __init__(self, place: Path, *, dies: bool) -> None:
        self.ids: list[str] = []
        self._place, self._dies = place, dies

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.ids += batch.sample_ids
        if trainer.global_step == SAVED and self._dies:
            trainer.save_checkpoint(self._place)
        if trainer.global_step == SAVED + 1 and self._dies:
            raise KeyboardInterrupt


def _run(spec: FitSpec, place: Path, *, dies: bool = False, resume: Path | None = None) -> list[str]:
    watch = Watch(place, dies=dies)

    def make_trainer(callbacks: list[lightning.Callback]) -> lightning.Trainer:
        return lightning.Trainer(
            max_steps=STEPS,
            max_epochs=-1,
            accelerator="cpu",
            callbacks=[*callbacks, watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    try:
        fit(spec, rank=0, world_size=1, barrier=lambda: None, make_trainer=make_trainer, resume=resume)
    except (KeyboardInterrupt, SystemExit):
        assert dies
    return watch.ids


@pytest.mark.parametrize("kind", ["shards", "prepared"])
def test_a_checkpoint_carries_the_place_of_what_was_trained_on(tmp_path: Path, kind: str) -> None:
    write_dataset(tmp_path / "data", "Alpha", SAMPLES, shards=3)
    recipe = replace(tiny(), stream=kind, global_batch=BATCH, steps=STEPS, temperature=1.0, most_visits=0)
    # batches are made ready ahead: the place is that of the model, not of the loader
    loader = LoaderSettings(threads=2, ahead=3)
    spec = FitSpec(recipe, str(tmp_path / "data"), ["Alpha"], str(tmp_path), loader=loader)
    place = tmp_path / "state.ckpt"
    first = _run(spec, place, dies=True)
    assert len(first) == (SAVED + 1) * BATCH
    assert torch.load(place, weights_only=True)[STREAM_STATE]["position"] == SAVED * BATCH
    second = _run(replace(spec, loader=LoaderSettings()), place, resume=place)
    assert Counter(first[: SAVED * BATCH] + second) == {f"Alpha/{number:03d}": 1 for number in range(SAMPLES)}
    write_dataset(tmp_path / "other", "Alpha", SAMPLES, first=7)
    with pytest.raises(DataError, match="stream: digest of the shards"):
        _run(replace(spec, data_root=str(tmp_path / "other")), place, resume=place)
