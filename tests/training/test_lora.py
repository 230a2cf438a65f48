"""LoRA: adapters alone are trained, the candidate is plain weights, and a run goes on bit by bit."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from infra.errors import UsageError
from tests.training.made import write_dataset
from tests.training.small import small_config, small_model
from training.checkpoints import CheckpointStore, CheckpointWriter
from training.distributed import make_trainer, resume_point
from training.fit import FitResult, fit, start_model
from training.lora import adapter_config, add_adapters, is_adapter, merged, save_adapters, trained_numbers
from training.lora_settings import Lora, lora_of, refuse_with
from training.memory_plan import Step, measure, plan
from training.module import Sam3Training
from training.optimiser import is_matrix, make_optimiser
from training.recipes import Recipe, resolve, tiny
from training.sam3.model import Predictions, PromptableSam3
from training.spec import FitSpec, RunSettings

LORA = Lora(rank=3, alpha=6.0)
BATCH, STEPS, KILLED = 4, 4, 2


def _adapted(lora: Lora = LORA) -> PromptableSam3:
    """A small model with adapters that do something."""
    model = small_model()
    add_adapters(model, lora, 1)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.1, generator=draw)
    return model


def _ask(model: PromptableSam3) -> Predictions:
    draw = torch.Generator().manual_seed(3)
    ids = torch.zeros(2, 32, dtype=torch.long)
    ids[:, :3] = torch.tensor([[5, 6, 7], [8, 9, 4]])
    with torch.inference_mode():
        images = model.encode_images(torch.randn(1, 3, 56, 56, generator=draw))
        return model.decode(images, model.encode_text(ids), torch.tensor([0, 0]), torch.tensor([0, 1]))


def _tensors(found: Predictions) -> list[Tensor]:
    return [found.logits, found.boxes_cxcywh, found.presence, found.masks, found.semantic]


def _close(one: Predictions, other: Predictions) -> bool:
    pairs = zip(_tensors(one), _tensors(other), strict=True)
    return all(torch.allclose(a, b, atol=2e-5, rtol=1e-4) for a, b in pairs)


def test_merged_weights_give_what_the_adapted_model_gives() -> None:
    model = _adapted()
    plain = small_model(seed=9)
    plain.load_state_dict(merged(model.state_dict(), LORA), strict=True)
    assert _close(_ask(plain), _ask(model))
    assert not _close(_ask(small_model()), _ask(model)), "the adapters of this test do nothing"


def test_a_merged_layer_is_what_peft_itself_merges() -> None:
    model = _adapted()
    ours = merged(model.state_dict(), LORA)
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            module.merge()
            assert torch.allclose(module.get_base_layer().weight, ours[f"{name}.weight"], atol=1e-6), name


def test_new_adapters_change_nothing_and_depend_on_the_seed_alone() -> None:
    model, again, other = (small_model() for _ in range(3))
    before = torch.get_rng_state()
    add_adapters(model, LORA, 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    add_adapters(again, LORA, 1)
    add_adapters(other, LORA, 2)
    assert _close(_ask(model), _ask(small_model()))
    one, two, three = (each.state_dict() for each in (model, again, other))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], three[name]) for name in one)


def test_peft_puts_what_was_trained_back_on_the_start_weights(tmp_path: Path) -> None:
    from peft import PeftModel

    model = _adapted()
    with torch.no_grad():  # a head that was trained as it is
        model.mask_decoder.instance_projection.bias.add_(0.5)
        model.detr_decoder.query_embed.weight.mul_(1.5)
    save_adapters(tmp_path / "adapters", model.state_dict(), LORA)
    loaded = PeftModel.from_pretrained(small_model(), str(tmp_path / "adapters")).eval()
    assert _close(_ask(loaded.base_model.model), _ask(model))


def test_the_number_of_trained_parameters_is_the_formulas() -> None:
    model = small_model()
    linear = {
        name: module.weight.shape for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
    }
    whole = sum(value.numel() for name, value in model.named_parameters() if name.startswith("mask_decoder."))
    add_adapters(model, replace(LORA, parts=("vision",), full=()), 1)
    # 2 layers of q, k, v, o (64 to 64) and two MLP layers (64 to 256 and back), rank · (inputs + outputs) each
    assert trained_numbers(model) == 2 * 3 * (4 * (64 + 64) + 2 * (64 + 256))
    adapted = [name for name in linear if f"{name}.lora_A.default.weight" in model.state_dict()]
    assert trained_numbers(model) == sum(3 * sum(linear[name]) for name in adapted)
    heads = small_model()
    add_adapters(heads, replace(LORA, parts=("vision",), full=("heads",)), 1)
    names = [name for name, value in heads.named_parameters() if value.requires_grad and not is_adapter(name)]
    assert {name.split(".")[0] for name in names} == {"mask_decoder", "dot_product_scoring", "detr_decoder"}
    assert not [name for name in names if name.startswith("detr_decoder.layers.")]
    assert trained_numbers(heads) > trained_numbers(model) + whole
    layers = adapter_config(heads.state_dict(), LORA)["target_modules"]
    assert set(layers) == set(adapted)


def _recipe(**changes: Any) -> Recipe:
    return replace(
        tiny(), lora=LORA, sam3=_tiny_text(), image_size=56, mask_size=28, global_batch=BATCH, steps=STEPS, **changes
    )


def _tiny_text() -> dict[str, Any]:
    config = small_config()
    config["text_config"]["vocab_size"] = 49408
    return config


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_rates_and_decay_of_adapters(kind: str) -> None:
    recipe = _recipe(optimiser=kind, vision_rate=0.5, layer_decay=0.8)
    module = Sam3Training(recipe)
    optimiser = make_optimiser(module.model, recipe)
    named = {id(parameter): name for name, parameter in module.model.named_parameters()}
    groups = {named[id(one)]: group for group in optimiser.param_groups for one in group["params"]}
    assert set(groups) == {name for name, value in module.model.named_parameters() if value.requires_grad}
    first = "vision_encoder.backbone.layers.0.attention.q_proj.lora_B.default.weight"
    second = first.replace("layers.0", "layers.1")
    # two layers: the last one is one step below the output
    assert groups[second]["lr"] == pytest.approx(recipe.learning_rate * 0.5 * LORA.rate * 0.8)
    assert groups[first]["lr"] == pytest.approx(recipe.learning_rate * 0.5 * LORA.rate * 0.8**2)
    assert groups[first]["weight_decay"] == recipe.weight_decay
    head = "dot_product_scoring.text_proj.weight"
    matrix_rate = recipe.matrix_rate if kind == "muon" else 1
    assert groups[head]["lr"] == pytest.approx(recipe.learning_rate * matrix_rate)
    moved_by_muon = [name for name, value in module.model.named_parameters() if is_matrix(name, value)]
    assert moved_by_muon
    assert not any(map(is_adapter, moved_by_muon))


class Stop(lightning.Callback):
    """Ends the process's run when `step` steps are done, after their checkpoint."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self._step:
            raise KeyboardInterrupt


def _run(spec: FitSpec, stop: int = 0) -> FitResult | None:
    writer = CheckpointWriter(CheckpointStore(spec.run.checkpoints))

    def trainer_of(callbacks: list[lightning.Callback]) -> lightning.Trainer:
        trainer = make_trainer(spec, "auto", writer, callbacks, devices=1, accelerator="cpu")
        if stop:
            trainer.callbacks.append(Stop(stop))
        return trainer

    try:
        with resume_point(writer.store, torch.device("cpu")) as resume:
            return fit(spec, rank=0, world_size=1, barrier=lambda: None, make_trainer=trainer_of, resume=resume)
    except (KeyboardInterrupt, SystemExit):
        writer.wait()
        return None


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> FitSpec:
    folder = tmp_path_factory.mktemp("lora")
    write_dataset(folder / "data", "Alpha", 24)
    recipe = _recipe(checkpoint_every=KILLED, checkpoint_parts=("vision", "detr_decoder", "mask"), most_visits=0)
    # dropout: random numbers of adapters must be found again too
    recipe = replace(recipe, lora=replace(LORA, dropout=0.2))
    run = RunSettings(checkpoints=str(folder / "checkpoints"))
    return FitSpec(recipe, str(folder / "data"), ["Alpha"], str(folder), run=run)


@pytest.mark.slow
def test_a_run_trains_adapters_alone_and_goes_on_bit_by_bit(spec: FitSpec, tmp_path: Path) -> None:
    result = _run(spec)
    assert result is not None
    begun, _ = start_model(spec.recipe, "")
    start, weights = begun.state_dict(), result.module.averaged_state()
    assert weights.keys() == start.keys()
    changed = {name for name in start if not torch.equal(start[name], weights[name])}
    base = {name.removeprefix("model.") for name in result.module._base_names()}
    adapted = {name.replace(".base_layer", "") for name in base if name.endswith(".base_layer.weight")}
    assert changed >= adapted
    frozen = {name.replace(".base_layer", "") for name in base} - adapted
    assert not changed & frozen
    assert all(value.grad is None for value in result.module.model.parameters() if not value.requires_grad)
    assert set(result.module.average) == {
        name.replace(".", "/") for name, value in result.module.model.named_parameters() if value.requires_grad
    }

    file = next(Path(spec.run.checkpoints).glob(f"step-{STEPS:08d}.ckpt"))
    held = torch.load(file, weights_only=True)["state_dict"]
    assert not [name for name in held if ".base_layer." in name], "the base lies in every checkpoint"

    again = replace(spec, run=RunSettings(checkpoints=str(tmp_path / "checkpoints")))
    assert _run(again, stop=KILLED + 1) is None
    assert CheckpointStore(again.run.checkpoints).newest_step() == KILLED
    resumed = _run(again)
    assert resumed is not None
    for name, value in resumed.module.averaged_state().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.slow
def test_an_adapted_model_compiles_whole() -> None:
    model = _adapted()
    eager = _ask(model)
    with torch.no_grad():
        model.compile_stages(backend="eager")  # as one graph each, or torch raises; the backend changes no number
    assert _close(_ask(model), eager)


def test_a_plan_counts_adapters_as_a_real_step_does() -> None:
    step = Step(small_config(), 56, batch=2, prompts=2, precision="fp32", kernels="cpu", lora=LORA)
    real = small_model().train()
    add_adapters(real, LORA, 0)
    planned, found = plan(step), measure(step, real)
    assert planned == found
    whole = plan(replace(step, lora=None))
    assert planned.trained == trained_numbers(real)
    assert planned.optimiser == 2 * 4 * planned.trained
    assert planned.peak < whole.peak
    frozen = plan(replace(step, lora=None, freeze=("vision", "text")))
    assert frozen.activations < planned.activations, "adapters in the vision encoder need its activations"


def test_settings_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lora_of(None) is None
    assert lora_of({"rank": 0, "parts": ["vision"]}) is None
    assert lora_of({"rank": 8, "parts": ["text", "vision"]}) == Lora(rank=8, parts=("vision", "text"))
    assert resolve({"lora": {"rank": 8}}).lora == Lora(rank=8)
    for key, value, said in (
        ("rank", -1, "a whole number of 1 to 1024"),
        ("rank", 2.5, "a whole number of 1 to 1024"),
        ("alpha", -1, "0 .as the rank. or more"),
        ("dropout", 1.0, "less than 1"),
        ("rate", float("nan"), "more than 0"),
        ("parts", ["vision", "neck"], "some of vision, text, geometry, detr"),
        ("parts", [], "at least one"),
        ("full", ["vision"], "some of heads, neck, geometry"),
        ("ranks", 3, "expected one of rank, alpha"),
    ):
        with pytest.raises(UsageError, match=rf"train\.lora\.{key}: .*{said}"):
            lora_of({"rank": 4, key: value})
    with pytest.raises(UsageError, match=r"full: expected parts that have no adapters, found 'geometry, which"):
        lora_of({"rank": 4, "parts": ["geometry"], "full": ["geometry"]})
    with pytest.raises(UsageError, match=r"train\.overrides\.lora: .* set train\.lora instead"):
        resolve({"overrides": {"lora": {"rank": 4}}})
    with pytest.raises(UsageError, match=r"train\.freeze: expected nothing beside train\.lora"):
        refuse_with(LORA, freeze=("text",), start="weights")
    with pytest.raises(UsageError, match=r"expected weights to start from \(train\.start\), found none"):
        refuse_with(LORA, freeze=(), start="")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else found(name))
    with pytest.raises(UsageError, match="extra `lora`"):
        add_adapters(small_model(), LORA, 1)


def test_the_adapters_are_readable_without_peft(tmp_path: Path) -> None:
    save_adapters(tmp_path, _adapted().state_dict(), LORA)
    names = load_file(tmp_path / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.") and ".default" not in name for name in names)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 3, 6.0)
