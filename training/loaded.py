"""A model loaded once a process: Ray keeps its processes between tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.storage import sha256_file
from training.spec import CONFIG

_segmenters: dict[tuple[str, str], Any] = {}
_MOST = 2  # models in memory


def segmenter(folder: str, weights: str) -> Any:
    """The `Segmenter` of a model folder's weights; one thread, so that processes share the cores."""
    import torch

    from training.predict import Segmenter

    stamp = (
        f"{folder}:{(Path(folder) / weights).stat().st_mtime_ns}:{sha256_file(Path(folder) / CONFIG)}",
        weights,
    )
    torch.set_num_threads(1)
    if stamp not in _segmenters:
        if len(_segmenters) >= _MOST:
            _segmenters.clear()
        _segmenters[stamp] = Segmenter.load(Path(folder), weights)
    return _segmenters[stamp]
