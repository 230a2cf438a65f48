"""The engine that training ships, served by MLflow in a process that knows nothing of this checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from infra.storage import write_json
from preprocessing.cards import Intensity
from preprocessing.harmonize.intensity import to_8bit
from registry.packaging import requirements, save_pyfunc
from registry.predictor import Predictor, encode_png, load_engine

SCRIPT = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
answers = model.predict([{"image": "new.png", "prompt": one} for one in ("polyp", "left ventricle")])
heavy = sorted({"ray", "lightning", "dvc", "prefect", "SimpleITK"} & set(sys.modules))
volumes = model.predict({"image": "new.nii.gz", "prompt": ["polyp", "left ventricle"]}, {"masks": "array"})
import training.predict
for one in volumes:
    one["mask"] = one["mask"].tolist()
    one["instances"] = [{**each, "mask": None} for each in one["instances"]]
said = {"answers": answers, "volumes": volumes, "code": training.predict.__file__, "heavy": heavy}
sys.stdout.write(json.dumps(said))
"""


@pytest.mark.slow
def test_a_sam3_candidate_gives_the_same_masks_in_a_fresh_process_as_here(tmp_path: Path):
    torch = pytest.importorskip("torch")
    from training.recipes import tiny
    from training.sam3.checkpoint import build_model, save_weights
    from training.sam3.tokenizer import PromptTokenizer

    recipe = tiny()
    # of the 2.5D kind, and eager to find something: the weights are random
    config = {"engine": "training.predict:Segmenter", "sam3": recipe.sam3, "image_size": recipe.image_size,
              "neighbours": 1, "decision": {"presence_threshold": 0.0, "mask_threshold": 0.5}}  # fmt: skip
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
    values = (np.random.default_rng(8).integers(0, 200, (4, 30, 40)) + 5).astype(np.int16)
    stored = sitk.GetImageFromArray(values)
    stored.SetSpacing((0.5, 0.5, 3.0))
    stored.SetDirection((0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0))  # the first slice is the top
    sitk.WriteImage(stored, str(tmp_path / "elsewhere" / "new.nii.gz"))
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
    # a volume goes through the engine's own way for volumes, with neighbours, in the orientation of training
    harmonized = sitk.DICOMOrient(stored, "LPS")
    seen, _ = to_8bit(sitk.GetArrayFromImage(harmonized), Intensity("percentile", (0.5, 99.5)))
    segmenter = load_engine(candidate)
    assert segmenter.neighbours == 1
    for found, expected in zip(
        answer["volumes"], segmenter.segment_volume(seen, ["polyp", "left ventricle"]), strict=True
    ):
        back = sitk.GetImageFromArray(expected["mask"].astype(np.uint8))
        back.CopyInformation(harmonized)
        back = sitk.DICOMOrient(
            back, sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(stored.GetDirection())
        )
        assert np.array_equal(np.array(found["mask"]), sitk.GetArrayFromImage(back))
        assert found["size"] == [4, 30, 40]
        assert found["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert len(found["instances"]) == len(expected["tracks"])
    assert any(np.array(found["mask"]).any() for found in answer["volumes"])
    assert answer["code"].startswith(str(tmp_path))
    assert answer["heavy"] == []
    written = (tmp_path / "model" / "requirements.txt").read_text().split()
    assert sorted(written) == sorted([*requirements(), "-c", "constraints.txt"])
