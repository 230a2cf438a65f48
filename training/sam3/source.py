"""Where weights come from: a file, a folder or a model of the Hugging Face Hub; and the config beside them.

Needs no torch, so that whoever launches a run can ask what it will start from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import DataError, UsageError
from infra.storage import digest_of, read_json, sha256_file
from training.spec import CONFIG, WEIGHTS

INDEX = f"{WEIGHTS}.index.json"
PICKLED = (".pt", ".pth", ".ckpt", ".bin")
OFFICIAL_IMAGE_SIZE = 1008
_PARTS = ("vision", "text", "geometry_encoder", "detr_encoder", "detr_decoder", "mask_decoder")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class Located:
    """Files of one checkpoint on this machine."""

    name: str  # as the user gave it
    files: tuple[Path, ...]  # several where safetensors come in shards
    config: Path | None  # the config.json beside them

    @property
    def bytes(self) -> int:
        """Size of the files together."""
        return sum(file.stat().st_size for file in self.files)

    def sha256(self) -> str:
        """SHA-256 of the file; of shards, the SHA-256 over their names and SHA-256s."""
        if len(self.files) == 1:
            return sha256_file(self.files[0])
        return digest_of({file.name: sha256_file(file) for file in self.files})


def locate(start: str | Path) -> Located:
    """Find the weights that `start` names.

    Args:
        start: a `.safetensors`, `.index.json` or torch file, a folder with one of them, or a Hub model as
            `owner/name` or `owner/name@revision`, of which only safetensors and JSON are fetched.
    """
    path = Path(start)
    if path.is_dir():
        return _in_folder(str(start), path.resolve())
    if path.is_file():
        return _from_file(str(start), path.resolve())
    if not path.is_absolute() and _HUB_NAME.fullmatch(str(start)):
        return _in_folder(str(start), _from_hub(str(start)))
    msg = f"{start}: expected a file or folder of SAM3 weights, or a Hub model as owner/name, found neither"
    raise DataError(msg)


def _from_file(name: str, file: Path) -> Located:
    config = file.with_name(CONFIG)
    files = _shards(file) if file.name.endswith(".index.json") else (file,)
    return Located(name, files, config if config.is_file() else None)


def _in_folder(name: str, folder: Path) -> Located:
    for wanted in (WEIGHTS, INDEX):
        if (folder / wanted).is_file():
            return _from_file(name, folder / wanted)
    found = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", *PICKLED))
    if len(found) == 1:
        return _from_file(name, found[0])
    listed = ", ".join(path.name for path in found) or "none"
    msg = f"{name}: expected {WEIGHTS}, {INDEX} or exactly one file of weights, found {listed}. Name the file itself"
    raise DataError(msg)


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{index.name}: expected JSON with a weight_map of tensor name to file, found something else ({error})"
        raise DataError(msg) from error
    strange = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if strange:
        msg = f"{index.name}: expected plain file names beside it, found {strange}"
        raise DataError(msg)
    missing = [name for name in names if not index.with_name(name).is_file()]
    if missing or not names:
        msg = f"{index.name}: expected the {len(names)} shards it names beside it, missing: {missing or 'all'}"
        raise DataError(msg)
    return tuple(index.with_name(name) for name in names)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(
            repository, revision=revision or None, allow_patterns=["*.safetensors", "*.index.json", CONFIG]
        )
    except Exception as error:  # no network, no such model, no permission: all mean the same here
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        msg = (
            f"{name}: no such file or folder here, and the Hub gave no model of that name: {reason}. "
            "Gated models need HF_TOKEN; HF_HUB_OFFLINE=1 uses what is already cached"
        )
        raise DataError(msg) from error
    return Path(folder)


def sam3_config(stored: Mapping[str, Any], name: str = CONFIG) -> dict[str, Any]:
    """Keyword arguments of transformers' Sam3Config out of a config file's content.

    Known forms: ours (`sam3`), the golden folder's (`sam3_config`), and transformers' own of the image model
    (`vision_config`, …) or of the video model (`detector_config`).
    """
    inner: Any = stored
    for key in ("sam3", "sam3_config", "detector_config"):
        if isinstance(stored.get(key), Mapping):
            inner = stored[key]
            break
    kept = {f"{part}_config": inner[f"{part}_config"] for part in _PARTS if f"{part}_config" in inner}
    if "vision_config" not in kept:
        found = ", ".join(sorted(stored)) or "nothing"
        msg = f"{name}: expected the config of a SAM3 model (vision_config, …), found {found}"
        raise DataError(msg)
    return kept


def image_size_of(config: Mapping[str, Any]) -> int:
    """Side in pixels of the square input that Sam3Config arguments describe."""
    backbone = config["vision_config"].get("backbone_config") or {}
    size = backbone.get("image_size", config["vision_config"].get("image_size", OFFICIAL_IMAGE_SIZE))
    if isinstance(size, list | tuple):
        if len(set(size)) != 1:
            msg = f"image_size: expected a square, found {list(size)}"
            raise UsageError(msg)
        size = size[0]
    return int(size)


def with_image_size(config: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The same model for inputs of another size; the weights are the same, name by name and shape by shape.

    What changes: the position embedding of the pretraining size is tiled to another grid, the global layers'
    rotary angles are scaled by window / grid, and the feature sizes follow. What does not: windows, their
    angles, and every learnt value. A grid that is no multiple of the window is padded in the windowed layers.
    """
    vision = dict(config["vision_config"])
    backbone = dict(vision.get("backbone_config") or {"model_type": "sam3_vit_model"})
    patch = int(backbone.get("patch_size", 14))
    if size <= 0 or size % patch:
        msg = f"image_size: expected a positive multiple of the patch, {patch} pixels, found {size}"
        raise UsageError(msg)
    grid = size // patch
    backbone["image_size"] = size
    vision.pop("image_size", None)
    vision["backbone_config"] = backbone
    vision["backbone_feature_sizes"] = [[factor * grid] * 2 for factor in (4, 2, 1)]
    return {**config, "vision_config": vision}


def read_config(located: Located) -> dict[str, Any] | None:
    """Sam3Config arguments from the config.json beside the weights; None where there is none."""
    if located.config is None:
        return None
    try:
        stored = read_json(located.config)
    except ValueError as error:
        msg = f"{located.config.name}: expected JSON, found something else ({error})"
        raise DataError(msg) from error
    if not isinstance(stored, Mapping):
        msg = f"{located.config.name}: expected a JSON object, found {type(stored).__name__}"
        raise DataError(msg)
    return sam3_config(stored, located.config.name)
