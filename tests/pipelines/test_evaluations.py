"""`segfoundry evaluate --model`: a second model beside the first, old data versions, and the same bytes each time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from infra.errors import UsageError
from pipelines import evaluations
from registry.gate import decide
from tests.training.made import write_dataset
from training.candidate import ENGINE
from training.decision import Decision, decision_record
from training.fit import start_model
from training.measure import Settings, run_evaluation
from training.recipes import RECIPES
from training.sam3.checkpoint import save_weights
from training.sam3.tokenizer import PromptTokenizer

NAMES = ["Alpha", "Beta"]
PARAMS = {"split": "test", "prompts": ["text", "box", "synonym"], "max_samples_per_dataset": 0}


def write_model(folder: Path, seed: int) -> Path:
    """A model folder with weights as they are initialised: wrong answers, and the same ones every time."""
    from dataclasses import replace

    from infra.storage import sha256_file, write_json

    recipe = replace(RECIPES["tiny"](), seed=seed)
    folder.mkdir(parents=True)
    model, _ = start_model(recipe, "")
    save_weights(folder / "model.safetensors", model.state_dict())
    start, _ = start_model(replace(recipe, seed=seed + 1), "")
    save_weights(folder / "start.safetensors", start.state_dict())
    PromptTokenizer.from_installed().save(folder / "tokenizer")
    config = {"engine": ENGINE, "image_size": recipe.image_size, "sam3": recipe.sam3, "recipe": recipe.name,
              "preprocessing": "pillow", "decision": decision_record(Decision(mask_threshold=0.4))}  # fmt: skip
    write_json(folder / "config.json", config)
    digests = {f"{name}_sha256": sha256_file(folder / f"{file}.safetensors") for name, file in
               (("weights", "model"), ("start", "start"))}  # fmt: skip
    write_json(folder / "train.json", {**digests, "datasets": {}})
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluations")
    for number, name in enumerate(NAMES):
        write_dataset(root / "data", name, 6, first=50 * number, splits=("test",))
    record = root / "data" / "Beta" / "dataset.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "evaluation_only": True}))
    write_model(root / "candidate", 0)
    write_model(root / "champion", 5)
    return root


def evaluated(made: Path, out: str, **more: Any) -> dict[str, Any]:
    given = {"data_root": made / "data", "datasets": NAMES, "candidate": made / "candidate", "out": made / out}
    return run_evaluation(**given, params=PARAMS, spread=map, **more)


@pytest.mark.slow
def test_two_models_in_one_call(made: Path) -> None:
    found = evaluated(made, "first", against=made / "champion")
    assert evaluated(made, "again", against=made / "champion") == found
    files = sorted(path.relative_to(made / "first") for path in (made / "first").rglob("*") if path.is_file())
    assert {"evaluation.json", "evaluation.parquet", "groups.parquet", "volumes.parquet"} <= set(map(str, files))
    for file in files:
        assert (made / "first" / file).read_bytes() == (made / "again" / file).read_bytes(), file
    text = (made / "first" / "evaluation.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON")) == found

    rows = pq.read_table(made / "first" / "evaluation.parquet").to_pylist()
    counts = {(row["model"], row["prompt"]) for row in rows}
    assert counts == {
        ("after", "text"),
        ("after", "box"),
        ("after", "synonym"),
        ("before", "text"),
        ("champion", "text"),
    }
    assert {row["wording"] for row in rows if row["prompt"] == "synonym"} == {"bright disc shape", "dark square shape"}
    assert all((row["dice_top1"] is None) == (not row["present"]) for row in rows)

    # what the document says is what the rows say
    def mean(dataset: str, model: str) -> float:
        own = [row["dice"] for row in rows if row["dataset"] == dataset and row["model"] == model
               and row["prompt"] == "text" and row["present"]]  # fmt: skip
        return sum(own) / len(own)

    paired = {(one["against"], one["level"], one["name"], one["external"]): one for one in found["paired"]}
    for name in NAMES:
        assert found["datasets"][name]["dice_text_champion"] == pytest.approx(mean(name, "champion"))
        for against, model in (("start", "before"), ("champion", "champion")):
            one = paired[against, "dataset", name, name == "Beta"]
            assert one["difference"] == pytest.approx(mean(name, "after") - mean(name, model))
            low, high = one["interval"]
            assert low - 1e-12 <= one["difference"] <= high + 1e-12
    assert paired["start", "all", "", True]["after"] == pytest.approx(mean("Beta", "after"))
    assert found["prompts"] == {
        "text": {"privileged": False},
        "box": {"privileged": True},
        "synonym": {"privileged": False},
    }
    assert found["synonyms"]["all"]["pairs"] == found["presence"]["present_pairs"]
    alarms = [row["predicted_px"] > 0 for row in rows if row["dataset"] == "Alpha" and row["model"] == "after"
              and row["prompt"] == "text" and not row["present"]]  # fmt: skip
    assert found["presence"]["false_alarm_rate"] == pytest.approx(sum(alarms) / len(alarms))
    assert all(math.isfinite(row["dice"]) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["detr_decoder.presence_head.layer3.bias", "mask_decoder.semantic_projection.bias"])
def test_answers_that_are_no_numbers_are_measured_written_as_null_and_blocked(
    made: Path, tmp_path: Path, broken: str
) -> None:
    candidate = write_model(tmp_path / "candidate", 0)
    weights = load_file(candidate / "model.safetensors")
    weights[broken].fill_(math.nan)
    save_weights(candidate / "model.safetensors", weights)
    run_evaluation(
        data_root=made / "data", datasets=["Alpha"], candidate=candidate, out=tmp_path / "evaluation",
        params={"split": "test"}, spread=map)  # fmt: skip
    text = (tmp_path / "evaluation" / "evaluation.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    presence = found["presence"]
    assert [presence[name] for name in ("auroc", "false_alarm_rate", "ece", "false_alarm_rate_interval")] == [None] * 4
    assert found["summary"]["dice_text_after"] == 0
    assert presence["models"]["before"]["false_alarm_rate"] is not None
    rules = {"max_false_alarm_rate": 1.0, "max_score_absent": 1.0}
    gate = decide(found, None, rules, lineage={"data_version": "data-v1", "manifest_digests": {}})
    assert {"max_false_alarm_rate", "max_score_absent"} <= {rule.name for rule in gate.failures}


@pytest.mark.slow
def test_a_model_without_a_start_has_no_before(made: Path) -> None:
    (made / "champion" / "start.safetensors").rename(made / "start")
    try:
        found = run_evaluation(
            data_root=made / "data", datasets=["Alpha"], candidate=made / "champion", out=made / "alone",
            params={"split": "test"}, spread=map)  # fmt: skip
    finally:
        (made / "start").rename(made / "champion" / "start.safetensors")
    assert found["paired"] == []
    assert found["summary"]["dice_text_before"] is None
    assert found["summary"]["dice_text_after"] is not None


@pytest.mark.parametrize("prompts", [["box"], ["text", "points"], ["text", "text"]])
def test_prompts_that_make_no_evaluation(prompts: list[str]) -> None:
    with pytest.raises(UsageError, match="expected text, which is the headline"):
        Settings.of({"split": "test", "prompts": prompts})


def test_wrong_models_and_data_say_what_there_is(tmp_path: Path) -> None:
    from infra import repository
    from pipelines.workspace import Workspace

    repository.prepare_git(tmp_path)
    place = Workspace(tmp_path)
    with pytest.raises(UsageError, match="models/candidate"):
        evaluations.model_folder(place, "nowhere")
    with pytest.raises(UsageError, match="expected models:/NAME@alias or models:/NAME/VERSION"):
        evaluations.model_folder(place, "models:/a/b/c")
    with pytest.raises(UsageError, match="known: none"):
        evaluations.data_at(place, "data-v9")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="nothing was changed"):
        evaluations._refuse_foreign(tmp_path / "mine")
