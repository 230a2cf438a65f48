"""Users' files in, masks of the same kind out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from infra.errors import DataError, SegfoundryError, UsageError
from pipelines.predictions import opened, predict_files
from registry.store import RegistryStore
from tests.made_dicom import series
from tests.registry import samples


@pytest.fixture(autouse=True)
def _engine_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(samples.ENGINES))


def inputs(folder: Path) -> tuple[list[Path], np.ndarray]:
    """A picture, an oblique volume and a DICOM series with a bright part each; the bright part of both volumes."""
    Image.fromarray(samples.picture()).save(folder / "scan.png")
    bright = np.zeros((6, 16, 12), dtype=bool)
    bright[1:3, 2:9, 7:11] = True
    values = np.where(bright, 900, 50 + np.indices(bright.shape).sum(axis=0)).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.5, 0.5, 2.0))
    image.SetDirection(sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.2, -0.1, 0.3).GetMatrix())
    sitk.WriteImage(sitk.DICOMOrient(image, "RAS"), str(folder / "scan.nii.gz"))
    series(folder / "series", values - 180)  # fat around tissue, in HU
    return [folder / "scan.png", folder / "scan.nii.gz", folder / "series"], bright


def test_the_command_writes_masks_in_the_kind_of_each_input(tmp_path: Path):
    candidate = samples.write_candidate(tmp_path / "candidate")
    files, bright = inputs(tmp_path)
    arguments = ["model", "predict", str(candidate), *map(str, files), "--prompt", "bright spot", "-p", "nothing/there"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments, "--out", str(tmp_path / "out"), "--dicom-seg", "--json"],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(samples.ENGINES)])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "out"
    said = json.loads(done.stdout)
    assert {**json.loads((out / "predictions.json").read_text()), "folder": str(out)} == said
    picture, volume, dicom = said["files"]
    assert [picture["kind"], volume["kind"], dicom["kind"]] == ["picture", "volume", "volume"]
    assert picture["prompts"][0]["mask"] == "001_scan/01_bright_spot.png"
    assert np.array_equal(np.asarray(Image.open(out / picture["prompts"][0]["mask"])) == 255,
                          samples.picture()[:, :, 0] > 100)  # fmt: skip
    assert picture["prompts"][0]["instances"] == [{"score": 0.9, "bbox_xyxy": [30.0, 12.0, 50.0, 22.0]}]
    assert (picture["prompts"][1]["pixels"], picture["prompts"][1]["mask"]) == (0, "001_scan/02_nothing_there.png")
    given, mask = sitk.ReadImage(str(files[1])), sitk.ReadImage(str(out / volume["prompts"][0]["mask"]))
    assert mask.GetSize() == given.GetSize()
    assert mask.GetDirection() == pytest.approx(given.GetDirection(), abs=1e-5)
    assert np.array_equal(sitk.GetArrayFromImage(mask).astype(bool), sitk.GetArrayFromImage(given) > 500)
    assert volume["prompts"][0]["millilitres"] == pytest.approx(bright.sum() * 0.5 * 0.5 * 2.0 / 1000)
    assert dicom["intensity"]["limits"] == [-160.0, 240.0]
    assert np.array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(out / dicom["prompts"][0]["mask"]))).astype(bool), bright
    )
    assert (out / dicom["dicom_seg"]).is_file()


def test_a_file_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path):
    candidate = samples.write_candidate(tmp_path / "candidate")
    Image.fromarray(samples.picture()).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with opened(str(candidate), None) as (predictor, model):
        with pytest.raises(SegfoundryError, match=r"b\.png: expected a picture"):
            predict_files(predictor, model, [tmp_path / "a.png", tmp_path / "b.png"], ["vessel"], tmp_path / "out")
        with pytest.raises(UsageError, match=r"found none at .*gone\.png"):
            predict_files(predictor, model, [tmp_path / "gone.png"], ["vessel"], tmp_path / "out")
        with pytest.raises(UsageError, match="at least one prompt"):
            predict_files(predictor, model, [tmp_path / "a.png"], [" "], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_registered_version_is_found_by_all_its_names_and_its_weights_are_checked(tmp_path: Path):
    store = RegistryStore(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "mlartifacts")
    candidate = samples.write_candidate(tmp_path / "candidate")
    folder = samples.write_evaluation(tmp_path / "evaluation", candidate)
    registered = store.register(
        candidate, folder, samples.lineage(candidate, folder), {}, model_name="segfoundry-sam3",
        example=(samples.picture(), samples.PROMPTS),
    )  # fmt: skip
    store.client.set_registered_model_alias(registered.name, "champion", "1")
    for address in ("champion", "1", "v1", "segfoundry-sam3@champion", "models:/segfoundry-sam3@champion",
                    "models:/segfoundry-sam3/1"):  # fmt: skip
        with opened(address, store) as (predictor, said):
            assert said["version"] == 1
            assert predictor.predict({"image": samples.picture(), "prompt": "bright spot"})[0]["score"] == 0.9
    for address in ("s3://bucket/model", "segfoundry-sam3@nobody"):
        with pytest.raises(UsageError), opened(address, store):
            pass
    [weights] = (tmp_path / "mlartifacts").rglob("model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with (
        pytest.raises(DataError, match=r"version 1: expected weights .* the files were changed or damaged"),
        opened("champion", store),
    ):
        pass
