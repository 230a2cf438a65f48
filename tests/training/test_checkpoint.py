"""Every published layout loads strictly, and comes back bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Sam3Model
from transformers.models.sam3.configuration_sam3 import Sam3Config

from infra.errors import DataError, UsageError
from tests.training.small import small_config, small_model
from training.sam3.checkpoint import describe, load_checkpoint, load_into, save_official, save_transformers
from training.sam3.convert import main
from training.sam3.layout import rotary_tables, to_official, to_transformers
from training.sam3.model import PromptableSam3
from training.sam3.shapes import config_of_shapes
from training.sam3.source import image_size_of, sam3_config, with_image_size
from training.sam3.strict import rotary_sizes
from training.spec import start_config, start_identity


@pytest.fixture(scope="module")
def model() -> PromptableSam3:
    return small_model()


def _official(model: PromptableSam3) -> dict[str, Tensor]:
    return {**to_official(model.state_dict()), **rotary_tables(**rotary_sizes(model.config))}


def _equal(first: PromptableSam3, second: PromptableSam3) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _as_file(layout: str, model: PromptableSam3, folder: Path) -> Path:
    """Write `model` the way `layout` is published; return what to load."""
    official, ours, file = _official(model), model.state_dict(), folder / "checkpoint.pt"
    state: dict[str, object]
    if layout == "sam3.pt":
        tracker = {"tracker.maskmem_tpos_enc": torch.ones(7, 1), "tracker.x.weight": torch.ones(2)}
        neck = {"detector.backbone.vision_backbone.sam2_convs.0.conv_1x1.weight": torch.ones(1)}
        points = {"detector.geometry_encoder.points_direct_project.weight": torch.ones(32, 2)}
        state = {**{f"detector.{k}": v for k, v in official.items()}, **tracker, **neck, **points}
    elif layout == "medical, bare":
        state = dict(official)
    elif layout == "medical, with optimiser":
        moments = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]}
        state = {"model": dict(official), "optimizer": moments, "epoch": 3, "steps": {"train": 10}}
    elif layout == "medical, prefixed in state_dict":
        state = {"state_dict": {f"module.detector.{k}": v for k, v in official.items()}, "scaler": None}
    elif layout == "legacy torch":
        torch.save(dict(official), file, _use_new_zipfile_serialization=False)
        return file
    else:
        file = folder / "model.safetensors"
        prefix = "detector_model." if layout == "transformers video" else ""
        named = {f"{prefix}{name}": value.contiguous() for name, value in ours.items()}
        if prefix:
            named |= {"tracker_model.a.weight": torch.ones(2), "tracker_neck.b.bias": torch.ones(3)}
        if layout == "transformers shards":
            names = sorted(named)
            parts = {f"model-0000{n + 1}-of-00003.safetensors": names[n::3] for n in range(3)}
            for part, held in parts.items():
                save_file({name: named[name] for name in held}, folder / part)
            index = {"weight_map": {name: part for part, held in parts.items() for name in held}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
            return folder
        save_file(named, file)
        return file if layout == "transformers file" else folder
    torch.save(state, file)
    return file


LAYOUTS = {
    "sam3.pt": ("official", "detector.", {"tracker": 3, "point": 1, "rotary": 2}),
    "medical, bare": ("official", "", {"rotary": 2}),
    "medical, with optimiser": ("official", "", {"rotary": 2, "optimizer": 2, "epoch": 0, "steps": 0}),
    "medical, prefixed in state_dict": ("official", "module.detector.", {"rotary": 2, "scaler": 0}),
    "legacy torch": ("official", "", {"rotary": 2}),
    "transformers file": ("transformers", "", {}),
    "transformers folder": ("transformers", "", {}),
    "transformers shards": ("transformers", "", {}),
    "transformers video": ("transformers", "detector_model.", {"tracker": 2}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("with_config", [True, False], ids=["config", "no config"])
def test_every_layout_loads_and_says_what_it_loaded(
    model: PromptableSam3, layout: str, with_config: bool, tmp_path: Path
) -> None:
    source = _as_file(layout, model, tmp_path)
    if with_config:
        config = {"sam3": small_config()}
        if layout == "transformers video":
            config = {"model_type": "sam3_video", "detector_config": model.config.to_dict(), "tracker_config": {}}
        (tmp_path / "config.json").write_text(json.dumps(config))
    elif layout.startswith("transformers"):
        # the weights of this layout carry no rotary tables, so that the windows of a model that is not the
        # official one stay open
        with pytest.raises(DataError, match=r"leaves the window and global layers open. Put the config.json"):
            load_checkpoint(source)
        return
    loaded, report = load_checkpoint(source)
    assert _equal(loaded, model)
    wanted_layout, prefix, aside = LAYOUTS[layout]
    assert (report.layout, report.prefix) == (wanted_layout, prefix)
    assert report.parameters == sum(value.numel() for value in model.parameters())
    assert report.used == len(to_official(model.state_dict()) if wanted_layout == "official" else model.state_dict())
    assert report.dtypes == {"float32": report.used}
    assert len(report.sha256) == 64
    assert len(report.aside) == len(aside)
    for word, count in aside.items():
        assert [n for reason, n in report.aside.items() if word in reason] == [count], (word, report.aside)


def test_layouts_come_back_bit_for_bit(model: PromptableSam3, tmp_path: Path) -> None:
    original = torch.load(_as_file("sam3.pt", model, tmp_path), weights_only=True)
    # the official file's class row holds values that nothing reads; they survive, too
    original["detector.backbone.vision_backbone.trunk.pos_embed"][:, 0] = 7.0
    torch.save(original, tmp_path / "checkpoint.pt")
    loaded, _ = load_checkpoint(tmp_path / "checkpoint.pt")
    save_transformers(tmp_path / "hf", loaded.config, loaded.state_dict())
    again, _ = load_checkpoint(tmp_path / "hf")
    save_official(tmp_path / "back.pt", again.config, again.state_dict(), base=tmp_path / "checkpoint.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert list(back) == list(original)
    assert all(torch.equal(back[name], value) and back[name].dtype == value.dtype for name, value in original.items())
    first, second = (load_file(tmp_path / "hf" / "model.safetensors"), again.state_dict())
    assert all(torch.equal(first[name], value) for name, value in second.items())


def test_transformers_reads_what_is_written_for_it(model: PromptableSam3, tmp_path: Path) -> None:
    save_transformers(tmp_path, model.config, model.state_dict())
    theirs = Sam3Model.from_pretrained(tmp_path)
    assert all(torch.equal(theirs.state_dict()[name], value) for name, value in model.state_dict().items())


def test_what_is_written_without_a_base_is_no_larger_than_its_tensors(model: PromptableSam3, tmp_path: Path) -> None:
    save_official(tmp_path / "a.pt", model.config, model.state_dict())
    save_file({k: v.contiguous() for k, v in _official(model).items()}, tmp_path / "base.safetensors")
    # tensors of a mapped safetensors file share one storage, which torch.save would write once for each
    save_official(tmp_path / "b.pt", model.config, model.state_dict(), base=tmp_path / "base.safetensors")
    assert (tmp_path / "b.pt").stat().st_size < 1.1 * (tmp_path / "a.pt").stat().st_size


@pytest.mark.parametrize("layout", ["sam3.pt", "medical, with optimiser", "transformers video"])
def test_all_that_does_not_fit_is_listed(model: PromptableSam3, layout: str, tmp_path: Path) -> None:
    source = _as_file(layout, model, tmp_path)
    official = not layout.startswith("transformers")
    state = torch.load(source, weights_only=True) if official else load_file(tmp_path / "model.safetensors")
    held = state.get("model", state)
    prefix = LAYOUTS[layout][1]
    names = sorted(
        name for name in held if name.startswith(prefix) and name.endswith(".weight") and held[name].ndim == 2
    )
    gone, bent, cast = names[3], names[5], names[8]
    del held[gone]
    held[bent] = torch.zeros(1, 3)
    held[cast] = held[cast].to(torch.int32)
    held[f"{prefix}stray.weight"] = torch.zeros(1)
    held["elsewhere.weight"] = torch.zeros(1)
    if official:
        torch.save(state, source)
    else:
        save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(DataError) as raised:
        load_into(model, source)
    text = str(raised.value)
    assert f"missing ['{gone}']" in text
    assert f"unexpected {sorted(['elsewhere.weight', prefix + 'stray.weight'])}" in text
    assert f"wrong shape ['{bent}: expected " in text
    assert f"wrong kind ['{cast}: expected dense floats, found torch.int32" in text


def test_a_failed_load_leaves_the_model_as_it_was(model: PromptableSam3, tmp_path: Path) -> None:
    state = _official(small_model(1))
    state.pop("transformer.decoder.norm.bias")
    torch.save(state, tmp_path / "short.pt")
    victim = small_model(2)
    with pytest.raises(DataError, match="missing"):
        load_into(victim, tmp_path / "short.pt")
    assert _equal(victim, small_model(2))


def test_two_models_in_one_file_are_refused(model: PromptableSam3, tmp_path: Path) -> None:
    official = to_official(model.state_dict())
    torch.save(
        {f"{prefix}.{k}": v for prefix in ("student", "teacher") for k, v in official.items()}, tmp_path / "x.pt"
    )
    with pytest.raises(DataError, match=r"expected one model, found official names after 'student\.' and"):
        load_checkpoint(tmp_path / "x.pt")


def test_a_config_of_another_window_is_told_by_the_rotary_tables(model: PromptableSam3, tmp_path: Path) -> None:
    """All weights would fit: the official loader computes something else without a word."""
    torch.save(_official(model), tmp_path / "checkpoint.pt")
    config = small_config()
    config["vision_config"]["backbone_config"]["window_size"] = 1
    (tmp_path / "config.json").write_text(json.dumps({"sam3": config}))
    with pytest.raises(DataError, match=r"found others in .*freqs_cis"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_half_precision_weights_load_exactly(model: PromptableSam3, tmp_path: Path) -> None:
    state = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    target = small_model(3)
    report = load_into(target, tmp_path / "model.safetensors")
    assert report.dtypes == {"bfloat16": len(state)}
    assert all(torch.equal(value, state[name].float()) for name, value in target.state_dict().items())


def test_the_full_model_has_the_published_sizes() -> None:
    with torch.device("meta"):
        full = PromptableSam3(Sam3Config())
        official = to_official(full.state_dict())
    assert sum(value.numel() for value in full.parameters()) == 840_376_374
    assert official["backbone.vision_backbone.trunk.pos_embed"].shape == (1, 577, 1024)
    assert to_transformers(official).keys() == full.state_dict().keys()
    # a bare sam3.pt, its sizes read from its shapes, is the model that transformers knows, at the official epsilon
    found, known = Sam3Config(**config_of_shapes(official, "sam3.pt")).to_dict(), Sam3Config().to_dict()
    assert found["vision_config"]["backbone_config"].pop("layer_norm_eps") == 1e-5
    assert known["vision_config"]["backbone_config"].pop("layer_norm_eps") == 1e-6
    assert found == known


def test_any_image_size_with_the_same_weights(model: PromptableSam3, tmp_path: Path) -> None:
    save_official(tmp_path / "checkpoint.pt", model.config, model.state_dict())
    for size in (28, 56, 98, 112):  # grids of 2, 4, 7 (padded to windows of 2) and 8 patches
        loaded, report = load_checkpoint(tmp_path / "checkpoint.pt", image_size=size)
        assert _equal(loaded, model)
        assert image_size_of(loaded.config.to_dict()) == size
        resized = [note for note in report.notes if "another image size" in note]
        # 28 pixels are one window: the global layer's table is as large as a window's
        assert bool(resized) == (size != 56)
        with torch.no_grad():
            features = loaded.encode_images(torch.zeros(1, 3, size, size))
            ids = torch.tensor([[298, 5, 299] + 29 * [0]])
            out = loaded.decode(features, loaded.encode_text(ids), torch.tensor([0]), torch.tensor([0]))
        grid = size // 14
        assert [tuple(level.shape[-2:]) for level in features.levels] == [(4 * grid,) * 2, (2 * grid,) * 2, (grid,) * 2]
        assert out.masks.shape == (1, 5, 4 * grid, 4 * grid)
        assert bool(torch.isfinite(out.semantic).all())
    with pytest.raises(UsageError, match="expected a positive multiple of the patch, 14 pixels, found 100"):
        with_image_size(small_config(), 100)


def test_configs_of_every_origin() -> None:
    known = sam3_config(Sam3Config().to_dict())
    assert sam3_config({"detector_config": Sam3Config().to_dict(), "model_type": "sam3_video"}) == known
    assert sam3_config({"sam3": known}) == sam3_config({"sam3_config": known}) == known
    with pytest.raises(DataError, match="expected the config of a SAM3 model"):
        sam3_config({"model_type": "bert", "hidden_size": 3})


def test_a_hub_model_is_found_in_the_cache_without_network(model: PromptableSam3, tmp_path: Path) -> None:
    """The Hub's own client in offline mode, on a cache laid out as it lays it out."""
    snapshot = tmp_path / "hub" / "models--someone--sam3-small" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    save_transformers(snapshot, model.config, model.state_dict())
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    code = (
        "import sys; from training.sam3.convert import main;"
        "bad = main(['someone/absent']); sys.exit(main(['someone/sam3-small']) or bad != 2)"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "someone/sam3-small: transformers layout" in done.stdout
    assert "someone/absent: no such file or folder here, and the Hub gave no model of that name" in done.stderr


def test_the_command_inspects_and_converts(
    model: PromptableSam3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _as_file("sam3.pt", model, tmp_path)
    assert main([str(source)]) == 0
    assert "official layout, prefix 'detector.'" in capsys.readouterr().out
    assert main([str(source), str(tmp_path / "hf")]) == 0
    assert main([str(tmp_path / "hf"), str(tmp_path / "b.pt"), "--layout", "official", "--base", str(source)]) == 0
    assert capsys.readouterr().out.count("sha256") == 4
    first, second = torch.load(source, weights_only=True), torch.load(tmp_path / "b.pt", weights_only=True)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert main([str(tmp_path / "hf"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "transformers"
    assert main([str(tmp_path / "nothing")]) == 2
    assert "found neither" in capsys.readouterr().err


def test_start_takes_an_official_file(model: PromptableSam3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from training.fit import start_model
    from training.recipes import tiny

    source = _as_file("sam3.pt", model, tmp_path)
    config = start_config(str(source))
    assert config["image_size"] == 56
    assert describe(source) == config["sam3"]
    started, report = start_model(replace(tiny(), sam3=config["sam3"]), str(source))
    assert report is not None
    assert _equal(started, model)
    # what a worker with another working folder gets is absolute, and the run is known by the file's content
    monkeypatch.chdir(tmp_path)
    name, digest = start_identity("checkpoint.pt")
    assert (Path(name), digest) == (source, report.sha256 or start_identity(str(source))[1])


def test_what_is_loaded_needs_no_second_copy_in_memory(tmp_path: Path) -> None:
    """Private memory during a load is the model's, whatever the size of the file (here 3 layouts of 150 MB)."""
    code = f"""
import sys, threading, time, torch
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.training.small import small_model
from training.sam3.checkpoint import load_into, save_official, save_weights
def private():
    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('RssAnon')) * 1024
model = small_model(vision=512, vision_layers=12)
size = sum(v.nbytes for v in model.state_dict().values())
folder = Path({str(tmp_path)!r})
save_official(folder / 'a.pt', model.config, model.state_dict())
save_weights(folder / 'b.safetensors', model.state_dict())
for file in ('a.pt', 'b.safetensors'):
    before, peak, stop = private(), [0], threading.Event()
    def watch():
        while not stop.is_set():
            peak[0] = max(peak[0], private())
            time.sleep(0.0005)
    thread = threading.Thread(target=watch); thread.start()
    load_into(model, folder / file)
    stop.set(); thread.join()
    print(file, size, peak[0] - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 2
    for file, size, more in lines:
        assert int(more) < 0.25 * int(size), (file, size, more)
