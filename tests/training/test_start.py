"""`train.start`: a run that begins from an official checkpoint file, through Ray, to a candidate folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.sam3.configuration_sam3 import Sam3Config

from infra.compute import ray_session
from infra.errors import DataError, UsageError
from infra.settings import Settings
from tests.training.made import write_dataset
from tests.training.small import small_config
from training.launch import run_training
from training.predict import Segmenter
from training.sam3.checkpoint import save_official
from training.sam3.init import initialise
from training.sam3.model import PromptableSam3


@pytest.mark.slow
def test_training_starts_from_an_official_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config()
    config["text_config"]["vocab_size"] = 49408
    model = PromptableSam3(Sam3Config(**config))
    initialise(model, 5)
    # sizes are read from the file's shapes: there is no config.json beside it
    digest = save_official(tmp_path / "weights" / "sam3.pt", model.config, model.state_dict())
    data = tmp_path / "data"
    write_dataset(data, "discs", 6, splits=("train", "train", "val"))
    monkeypatch.chdir(tmp_path)  # the workers' folder is another: a relative start must still be found
    params = {"recipe": "tiny", "steps": 2, "workers": 1, "start": "weights/sam3.pt"}
    out = tmp_path / "candidate"
    with ray_session(tmp_path / "state", Settings(num_cpus=2)):
        record = run_training(data_root=data, datasets=["discs"], out=out, params=params, run_dir=tmp_path / "run")
        # a candidate is continued, with adapters
        grown = run_training(
            data_root=data,
            datasets=["discs"],
            out=tmp_path / "grown",
            params={**params, "start": str(out), "lora": {"rank": 2}},
            run_dir=tmp_path / "run",
        )
        with pytest.raises(UsageError, match=r"train\.start: expected weights that train\.licence .commercial. all"):
            run_training(
                data_root=data,
                datasets=["discs"],
                out=out,
                params={**params, "licence": "commercial"},
                run_dir=tmp_path / "run",
            )
        torch.save({"detector.x": torch.zeros(1)}, tmp_path / "other.pt")
        with pytest.raises(DataError, match=r"other\.pt: expected the weights of a SAM3 image model"):
            run_training(
                data_root=data,
                datasets=["discs"],
                out=out,
                params={**params, "start": "other.pt"},
                run_dir=tmp_path / "run",
            )
        short = torch.load(tmp_path / "weights" / "sam3.pt", weights_only=True)
        short.pop("detector.transformer.decoder.norm.bias")
        torch.save(short, tmp_path / "short.pt")
        with pytest.raises(DataError, match=r"short\.pt .*missing \['detector\.transformer\.decoder\.norm\.bias'\]"):
            run_training(
                data_root=data,
                datasets=["discs"],
                out=out,
                params={**params, "start": "short.pt"},
                run_dir=tmp_path / "run",
            )
    begun = load_file(out / "start.safetensors")
    assert all(torch.equal(begun[name], value) for name, value in model.state_dict().items())
    trained = load_file(out / "model.safetensors")
    assert any(not torch.equal(trained[name], value) for name, value in begun.items())
    assert (record["start"]["layout"], record["start"]["prefix"]) == ("official", "detector.")
    assert record["start"]["used"] > 100
    assert record["start"]["sha256"] == digest
    written = json.loads((out / "config.json").read_text())
    assert written["image_size"] == 56
    assert str(tmp_path) not in json.dumps([record, written]), "no path of this machine in what is kept"
    assert Segmenter.load(out).image_size == 56
    assert written["preprocessing"] == "official"
    assert Segmenter.load(out).preprocessing == "official"
    # nobody's release: an official one has a tracker beside
    assert [one["terms"] for one in record["start_licences"]] == ["SAM License", "not stated"]
    assert record["licence"]["commercial"] == "unknown"
    _check_adapted(tmp_path / "grown", grown, record, trained)


def _check_adapted(
    folder: Path, record: dict[str, Any], parent: dict[str, Any], start: dict[str, torch.Tensor]
) -> None:
    """Plain weights, of which adapted layers and heads alone differ from the start; its terms are the parent's too."""
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == start.keys()
    adapters = load_file(folder / "adapters" / "adapter_model.safetensors")
    factors = {name.split(".lora_")[0] for name in adapters if ".lora_" in name}
    changed = {name for name, value in weights.items() if not torch.equal(value, start[name])}
    assert changed & {f"{name.removeprefix('base_model.model.')}.weight" for name in factors}
    assert not [name for name in changed if f"base_model.model.{name}" not in adapters and not _adapted(name, factors)]
    assert record["recipe"]["lora"]["rank"] == 2
    assert record["trained_parameters"] == sum(value.numel() for value in adapters.values())
    assert record["trained_parameters"] < record["parameters"] == parent["parameters"]
    assert record["start_licences"][:2] == parent["start_licences"]
    assert record["start_licences"][2]["of"] == f"data of model {parent['weights_sha256'][:12]}"
    assert json.loads((folder / "config.json").read_text())["preprocessing"] == "official"
    assert Segmenter.load(folder).preprocessing == "official"


def _adapted(name: str, factors: set[str]) -> bool:
    return f"base_model.model.{name.removesuffix('.weight')}" in factors
