"""The model as others get it: over HTTP by its signature, and in an environment that has its requirements alone."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import SimpleITK as sitk
from pycocotools import mask as coco

from infra.storage import read_json
from registry.packaging import requirements, save_pyfunc
from registry.predictor import encode_png
from tests.registry import samples

SOAK = bool(os.environ.get("SEGFOUNDRY_SOAK"))
PROJECT = Path(__file__).resolve().parents[2]
MAY_NOT = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".pyc", ".ckpt", ".npy", ".joblib")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow model folder of the threshold engine."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "work").mkdir()
    sys.path.insert(0, str(samples.ENGINES))
    try:
        candidate = samples.write_candidate(folder / "candidate")
        save_pyfunc(
            candidate,
            folder / "model",
            folder / "work",
            example=(samples.picture(), samples.PROMPTS),
            metadata={},
            serving={"orientation": "LPS", "datasets": {"BUSI": {"modality": "ultrasound", "samples": 3}}},
        )
    finally:
        sys.path.remove(str(samples.ENGINES))
    return folder / "model"


def volume(path: Path) -> np.ndarray:
    """An oblique volume on disk; its bright part."""
    bright = np.zeros((6, 16, 12), dtype=bool)
    bright[1:3, 2:9, 7:11] = True
    values = np.where(bright, 900, 50 + np.indices(bright.shape).sum(axis=0)).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.5, 0.5, 2.0))
    image.SetDirection(sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.2, -0.1, 0.3).GetMatrix())
    sitk.WriteImage(image, str(path))
    return bright


def test_the_folder_holds_safetensors_text_and_code_and_nothing_that_runs_when_it_is_read(model: Path):
    files = [path for path in model.rglob("*") if path.is_file()]
    assert not [path.name for path in files if path.suffix in MAY_NOT]
    pickled = [path for path in files if path.read_bytes()[:1] == b"\x80" and path.read_bytes()[-1:] == b"."]
    assert pickled == []  # of protocol 2 and on, whatever it is called
    assert {path.suffix for path in files} <= {".py", ".safetensors", ".json", ".txt", ".yaml", ".yml", "", ".md"}
    [said] = model.rglob("serving.json")
    assert read_json(said)["reader"] == "preprocessing.serving:Reader"


def test_requirements_are_fixed_as_the_lock_fixes_them_down_to_the_last(model: Path):
    lock = {}
    for line in (PROJECT / "requirements.lock").read_text().splitlines():
        if "==" in line and not line.startswith((" ", "#")):
            name, _, version = line.partition(" ")[0].partition("==")
            lock[name.lower().replace("_", "-")] = version.rstrip("\\ ")
    pins = dict(line.split("==") for line in (model / "constraints.txt").read_text().split())
    assert {line.partition("==")[0].lower() for line in requirements()} <= pins.keys()
    assert len(pins) > len(requirements())
    assert pins["torch"] == "2.13.0"  # installed before the lock, by version
    assert {name: version for name, version in pins.items() if name in lock} == {
        name: lock[name] for name in pins if name in lock
    }
    assert set(pins) - set(lock) <= {"torch", "setuptools", "pip", "wheel"}
    assert "ray" not in pins  # what only training needs is not there
    assert "lightning" not in pins
    written = (model / "requirements.txt").read_text().splitlines()
    assert sorted(written) == sorted([*requirements(), "-c constraints.txt"])


ALONE = """
import importlib.metadata, json, os, sys
allowed = {line.split("==")[0] for line in open(sys.argv[1] + "/constraints.txt").read().split()}
owners = importlib.metadata.packages_distributions()
def canonical(name): return name.lower().replace("_", "-").replace(".", "-")
class Alone:
    # an environment that has the model's requirements alone: every other distribution is not there
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        owner = {canonical(one) for one in owners.get(top, ())}
        if owner == {"segfoundry"}:
            owner = set() if os.path.isdir(f"{sys.argv[1]}/code/{top}") else owner
        if owner and not owner & allowed:
            raise ModuleNotFoundError(f"No module named {top!r}: {sorted(owner)} is not among the requirements")
# nor may this checkout fill in for a module that the model does not bring
sys.meta_path[:] = [Alone(), *(one for one in sys.meta_path if "editable" not in str(getattr(one, "__module__", "")))]
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
answers = model.predict([{"image": name, "prompt": "bright spot"} for name in ("new.png", "new.nii.gz")])
import preprocessing.serving, preprocessing.dicom_seg_writer, highdicom
other = []
for name in ("ray", "lightning", "dvc", "pipelines", "registry.store"):
    try:
        __import__(name)
        other.append(name)
    except ModuleNotFoundError:
        pass
sys.stdout.write(json.dumps({"answers": answers, "code": preprocessing.serving.__file__, "other": other}))
"""


def test_it_serves_pictures_and_volumes_where_nothing_but_its_requirements_can_be_imported(model: Path, tmp_path: Path):
    (tmp_path / "new.png").write_bytes(encode_png(samples.picture()))
    bright = volume(tmp_path / "new.nii.gz")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true",
                   "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(model)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    _check(said["answers"], bright)
    assert said["code"].startswith(str(model))
    assert said["other"] == []


def _check(answers: list[dict[str, Any]], bright: np.ndarray) -> None:
    picture, scan = answers
    assert np.array_equal(coco.decode(picture["rle"]), samples.picture()[:, :, 0] > 100)
    found = np.zeros(scan["size"], dtype=bool)
    for one in scan["slices"]:
        found[one["index"]] = coco.decode(one["rle"])
    assert np.array_equal(found, bright)


def requests(folder: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    bright = volume(folder / "sent.nii.gz")
    text = [base64.b64encode(payload).decode() for payload in (
        encode_png(samples.picture()), (folder / "sent.nii.gz").read_bytes())]  # fmt: skip
    rows = [{"image": one, "prompt": "bright spot"} for one in text]
    split = {"columns": ["image", "prompt"], "data": [list(row.values()) for row in rows]}
    columns = {"image": text, "prompt": ["bright spot"] * 2}
    return [{"dataframe_split": split}, {"dataframe_records": rows}, {"inputs": columns}], bright


def test_post_invocations_answers_in_every_form_that_mlflow_takes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import mlflow.pyfunc
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    monkeypatch.syspath_prepend(str(samples.ENGINES))
    client = TestClient(init(mlflow.pyfunc.load_model(str(model))), raise_server_exceptions=False)
    bodies, bright = requests(tmp_path)
    for body in bodies:
        done = client.post("/invocations", json=body)
        assert done.status_code == 200, done.text
        _check(done.json()["predictions"], bright)
    array = client.post("/invocations", json={**bodies[0], "params": {"masks": "array", "like": "BUSI"}})
    picture, scan = array.json()["predictions"]
    assert np.array_equal(np.array(picture["mask"]), samples.picture()[:, :, 0] > 100)
    assert np.array_equal(np.array(scan["mask"]), bright)
    window = client.post("/invocations", json={**bodies[0], "params": {"intensity": "window:0:1000"}})
    assert window.json()["predictions"][1]["intensity"]["limits"] == [0.0, 1000.0]
    nested = {"dataframe_records": [{"image": samples.picture().tolist(), "prompt": "bright spot"}]}
    assert client.post("/invocations", json=nested).json()["predictions"][0]["size"] == [48, 64]
    for body in ({"dataframe_records": [{"image": "AAAA"}]}, {"dataframe_records": [{"image": "AAAA", "prompt": "x"}]},
                 {**bodies[0], "params": {"masks": "holes"}}):  # fmt: skip
        assert client.post("/invocations", json=body).status_code == 400


@pytest.mark.slow
@pytest.mark.skipif(not SOAK, reason="installs torch: minutes; SEGFOUNDRY_SOAK=1")
@pytest.mark.timeout(1800)
def test_a_new_environment_with_the_models_requirements_alone_serves_it_over_http(model: Path, tmp_path: Path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", model / "requirements.txt"],
        check=True, cwd=model, timeout=1200,
    )  # fmt: skip
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True)
    names = {one["name"].lower() for one in json.loads(listed.stdout)}
    assert "torch" in names
    assert not names & {"ray", "lightning", "dvc", "prefect", "segfoundry"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true",
                   "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}  # fmt: skip
    server = subprocess.Popen(
        [python, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local", "--port", str(port)],
        env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        bodies, bright = requests(tmp_path)
        done = httpx.post(f"http://127.0.0.1:{port}/invocations", json=bodies[0], timeout=60)
        assert done.status_code == 200, done.text
        _check(done.json()["predictions"], bright)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
