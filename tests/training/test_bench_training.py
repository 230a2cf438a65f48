"""The training benchmark: ways do the same work, every field is there and means what it says. No timing is asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tests.training.made import write_dataset
from training.bench.__main__ import main
from training.bench.device import PeakMemory, peak_flops
from training.bench.flops import step_flops
from training.bench.run import OURS, PLAIN, UNPACKED, Options, _ways, resolved, run
from training.bench.sections import memory_section, recipes_section, speed_section, worth_section
from training.bench.ways import PARTS, PlainWay, UnpackedWay
from training.bench.workload import MADE_UP, PlainTokenizer, Workload, make_up, prompt_rounds, with_prompts
from training.memory_plan import document, run_stages
from training.sam3.tokenizer import PromptTokenizer

OPTIONS = Options(model_size="tiny", batch=2, prompts=3, steps=1, repetitions=2, device="cpu")


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    folder = tmp_path_factory.mktemp("workload")
    recipe = resolved(OPTIONS)
    make_up(folder, recipe.image_size, OPTIONS.prompts)
    return Workload(recipe, folder, [MADE_UP], folder / "work")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return run(replace(OPTIONS, checkpoint_parts=("vision",), variants=(UNPACKED, "recomputed")))


def test_the_document_has_every_field_and_they_agree(found: dict[str, Any]) -> None:
    found = json.loads(json.dumps(found))
    assert found["asked"]["batch"] == 2
    assert found["asked"]["prompts_per_image"] == 3
    assert found["parameters"] > 3e6
    assert found["machine"]["versions"]["torch"] == torch.__version__
    assert "matrix product in this run" in found["peak"]["how"]
    assert set(found["ways"]) == {OURS, UNPACKED, "recomputed", PLAIN}
    assert found["ways"][OURS]["checkpoint_parts"] == ["vision"]
    for way in found["ways"].values():
        for name in ("images_per_s", "prompts_per_s", "step_s", "model_flop_utilisation"):
            assert 0 < way[name]["min"] <= way[name]["median"] <= way[name]["max"] < math.inf
        assert way["prompts_per_s"]["median"] == pytest.approx(3 * way["images_per_s"]["median"])
        assert set(way["seconds_per_step"]) == set(PARTS)
        assert all(seconds > 0 for seconds in way["seconds_per_step"].values())
        low, high = way["step_s"]["min"], way["step_s"]["max"]
        assert low * 0.999 <= sum(way["seconds_per_step"].values()) <= high * 1.001
        assert way["peak_memory_bytes"] > found["parameters"] * 4
        assert 0 <= way["added_in_a_step_bytes"] < way["peak_memory_bytes"]
        assert way["first_step_s"] > 0
        speed = found["flops"]["per_step"] / found["peak"]["flop_per_s"] / way["step_s"]["max"]
        assert way["model_flop_utilisation"]["min"] == pytest.approx(speed)
    kept = {name: found["ways"][name]["kept_for_backward_bytes"] for name in (OURS, "recomputed")}
    assert kept["recomputed"] < kept[OURS]
    ratio = found["prompts_per_s_over_plain"][OURS]
    assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]


def test_a_recipe_with_a_second_set_of_queries_is_measured_beside_a_model_without_one() -> None:
    # transformers' model returns one set: its loss must not ask for the other
    found = run(replace(OPTIONS, recipe="full", batch=1, prompts=2, repetitions=1, optimiser="adamw"))
    assert set(found["ways"]) == {"ours", "plain"}
    assert run(replace(OPTIONS, batch=1, prompts=1, repetitions=1, plain=False))["prompts_per_s_over_plain"] == {}


def test_both_ways_answer_the_same_prompts_alike(workload: Workload) -> None:
    """The plain way's outputs are ours, but for the geometry token that transformers leaves out without boxes."""
    ways, _ = _ways(OPTIONS, resolved(OPTIONS), workload, torch.device("cpu"))
    plain = ways[PLAIN]
    assert isinstance(plain, PlainWay)
    own = dict(ways[OURS].module.model.named_parameters())
    assert all(own[name] is value for name, value in plain.model.named_parameters())
    batch = next(workload.batches())
    rounds = prompt_rounds(batch.image_of_prompt)
    assert [len(prompts) for prompts in rounds] == [2, 2, 2]
    assert sorted(torch.cat(rounds).tolist()) == list(range(6))
    part = with_prompts(batch, rounds[1])
    with torch.no_grad():
        packed = ways[OURS].module.model.encode_images(batch.pixel_values)
        alone = plain.model.vision_encoder(part.pixel_values).fpn_hidden_states
    torch.testing.assert_close(packed.levels[0], alone[0], atol=1e-5, rtol=1e-4)
    before = {name: value.detach().clone() for name, value in own.items()}
    plain.run(1)
    changed = [name for name, value in own.items() if not torch.equal(value, before[name])]
    assert len(changed) > 0.8 * len(own)


def test_without_packing_the_picture_is_seen_again_for_every_prompt(workload: Workload) -> None:
    ways, _ = _ways(
        replace(OPTIONS, variants=(UNPACKED,), plain=False), resolved(OPTIONS), workload, torch.device("cpu")
    )
    assert set(ways) == {OURS, UNPACKED}
    seen: dict[str, int] = {}
    tallies = {}
    for name, way in ways.items():
        seen[name] = 0

        def count(*_: Any, name: str = name) -> None:
            seen[name] += 1

        way.module.model.vision_encoder.register_forward_hook(count)
        tallies[name] = way.run(1)
    assert seen == {OURS: 1, UNPACKED: OPTIONS.prompts}
    assert tallies[OURS].prompts == tallies[UNPACKED].prompts == OPTIONS.batch * OPTIONS.prompts
    assert isinstance(ways[UNPACKED], UnpackedWay)


def test_a_round_keeps_its_own_objects(workload: Workload) -> None:
    batch = next(workload.batches())
    total = 0
    for prompts in prompt_rounds(batch.image_of_prompt):
        part = with_prompts(batch, prompts)
        total += len(part.targets.prompt)
        for new, old in enumerate(prompts.tolist()):
            assert torch.equal(
                part.targets.masks[part.targets.prompt == new], batch.targets.masks[batch.targets.prompt == old]
            )
            assert torch.equal(part.pixel_values[new], batch.pixel_values[batch.image_of_prompt[old]])
            assert torch.equal(part.input_ids[new], batch.input_ids[batch.text_of_prompt[old]])
            assert torch.equal(part.targets.semantic[new], batch.targets.semantic[old])
    assert total == len(batch.targets.prompt) > 0


def test_operations_are_those_of_a_real_pass(workload: Workload) -> None:
    ways, _ = _ways(OPTIONS, resolved(OPTIONS), workload, torch.device("cpu"))
    model, batch = ways[OURS].module.model, next(workload.batches())

    def attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def attention_backward(
        grad: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any
    ) -> int:
        return sdpa_backward_flop_count(grad, query, key, value)

    own = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        predictions = run_stages(model, vars(batch))
        sum(
            part.sum()
            for part in (
                predictions.logits,
                predictions.boxes_cxcywh,
                predictions.presence,
                predictions.masks,
                predictions.semantic,
            )
        ).backward()
    counted = step_flops(resolved(OPTIONS), batch)
    # masked attention has another formula on a CPU, where its backward pass does not compute the scores again
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert step_flops(replace(resolved(OPTIONS), checkpoint_parts=("vision",)), batch) == counted
    assert step_flops(replace(resolved(OPTIONS), freeze=("vision",)), batch) < counted


def test_given_data_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path, "A", 6)
    code = main(
        [
            *("--data", str(tmp_path), "--model-size", "tiny", "--batch", "2", "--prompts", "2", "--steps", "1"),
            *(
                "--repetitions",
                "1",
                "--precision",
                "bf16",
                "--device",
                "cpu",
                "--profile",
                str(tmp_path / "profile.txt"),
            ),
        ]
    )
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert code == 0
    assert document["asked"]["data"] == ["A"]
    assert document["asked"]["precision"] == "bf16"
    assert "aten::" in (tmp_path / "profile.txt").read_text()
    assert "repetition 1 of 1" in printed.err


def test_a_wrong_use_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model-size", "100"]) == 2
    assert "multiple of 128" in capsys.readouterr().err
    assert main(["--data", str(tmp_path), "--model-size", "tiny"]) == 2
    assert "found none" in capsys.readouterr().err


def test_the_plain_tokenizer_has_the_form_of_the_real_one() -> None:
    real, plain = PromptTokenizer.from_installed()(["left lung", "cell"]), PlainTokenizer()(["left lung", "cell"])
    assert plain.shape == real.shape
    assert plain.dtype == real.dtype
    assert torch.equal(plain[:, 0], real[:, 0])
    assert torch.equal((plain != 0).sum(1), (real != 0).sum(1))


def test_memory_and_peak_are_measured() -> None:
    memory = PeakMemory(torch.device("cpu"))
    memory.restart()
    before = memory.read()
    held = torch.ones(32 * 2**20)
    assert memory.read() - before > 0.9 * held.numel() * held.element_size()
    assert peak_flops(torch.device("cpu"), "fp32")["flop_per_s"] > 1e8


def test_the_page_holds_what_was_measured(found: dict[str, Any]) -> None:
    text = speed_section(found, "--model-size tiny")
    assert f"| ours | {found['ways'][OURS]['prompts_per_s']['median']:.2f} (" in text
    assert f"{found['prompts_per_s_over_plain'][OURS]['median']:.2f} × (" in text
    assert "first step takes" not in worth_section(found)  # nothing was compiled
    packing = found["ours_over"][UNPACKED]["median"]
    assert f"Packing prompts: {packing:.2f} ×" in worth_section(found)
    assert f"| tiny | {found['parameters'] / 1e6:.1f} | " in recipes_section([found], "128")
    from training.memory_plan import Step
    from training.sam3 import sizes

    planned = document(Step(sizes.tiny(), 96, 1, 2))
    assert f"| 1 × 2 | – | {planned['bytes']['activations'] / 2**30:.2f} |" in memory_section([((1, 2, ""), planned)])


def test_it_starts_on_a_bare_machine() -> None:
    """No Ray, Prefect, MLflow, DVC, SimpleITK, imagecodecs, CLIP vocabulary or ftfy is imported on the way."""
    code = """
import sys

ABSENT = {"ray", "prefect", "mlflow", "dvc", "SimpleITK", "imagecodecs", "pydicom", "tifffile", "ftfy", "open_clip",
          "typer", "psutil", "webdataset", "duckdb", "pydantic_settings", "torchvision"}

class Bare:
    finders = list(sys.meta_path)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)

    def find_distributions(self, *context):
        for finder in self.finders:
            for found in getattr(finder, "find_distributions", lambda *_: ())(*context):
                if found.metadata["Name"] != "open_clip_torch":
                    yield found

sys.meta_path[:] = [Bare()]
from training.bench.workload import tokenizer
import training.bench.run, training.bench.page, training.memory_plan
assert tokenizer()[1] == 'plain'
assert not ABSENT & {name.partition(".")[0] for name in sys.modules}, ABSENT & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=120)
