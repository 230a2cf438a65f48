"""The engine that training ships, served by MLflow in a process that knows nothing of this checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from infra.storage import write_json
from registry.packaging import requirements, save_pyfunc
from registry.predictor import Predictor, encode_png

SCRIPT = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
answers = model.predict([{"image": "new.png", "prompt": one} for one in ("polyp", "left ventricle")])
import training.predict
heavy = sorted({"ray", "lightning", "dvc", "prefect", "SimpleITK"} & set(sys.modules))
sys.stdout.write(json.dumps({"answers": answers, "code": training.predict.__file__, "heavy": heavy}))
"""


@pytest.mark.slow
def test_a_sam3_candidate_gives_the_same_masks_in_a_fresh_process_as_here(tmp_path: Path):
    torch = pytest.importorskip("torch")
    from training.recipes import tiny
    from training.sam3.checkpoint import build_model, save_weights
    from training.sam3.tokenizer import PromptTokenizer

    recipe = tiny()
    config = {"engine": "training.predict:Segmenter", "sam3": recipe.sam3, "image_size": recipe.image_size}
    candidate = tmp_path / "candidate"
    candidate.mkdir()
    write_json(candidate / "config.json", {**config, "recipe": asdict(recipe)})
    torch.manual_seed(7)
    save_weights(candidate / "model.safetensors", build_model(config).state_dict())
    PromptTokenizer.from_installed().save(candidate / "tokenizer")

    image = np.random.default_rng(7).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    (tmp_path / "work").mkdir()
    save_pyfunc(candidate, tmp_path / "model", tmp_path / "work", example=(image, ["polyp"]), metadata={})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "new.png").write_bytes(encode_png(image))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "model")],
        cwd=tmp_path / "elsewhere",
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
             "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    here = Predictor.load(candidate).predict({"image": image, "prompt": ["polyp", "left ventricle"]})
    assert [one["rle"] for one in answer["answers"]] == [one["rle"] for one in here]
    assert [one["score"] for one in answer["answers"]] == pytest.approx([one["score"] for one in here], abs=1e-5)
    assert answer["code"].startswith(str(tmp_path))
    assert answer["heavy"] == []
    written = (tmp_path / "model" / "requirements.txt").read_text().split()
    assert sorted(written) == sorted([*requirements(), "-c", "constraints.txt"])
