from __future__ import annotations

import json
import pickle
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from infra.errors import DataError, ServiceError
from training.checkpoints import CheckpointStore, CheckpointWriter, load_state, to_memory


@pytest.fixture(params=["folder", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A local folder, and a store that is none: fsspec's in memory."""
    return str(tmp_path / "run") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/run"


def _names(root: str) -> list[str]:
    store, path = fsspec.core.url_to_fs(root)
    return sorted(str(name).rsplit("/", 1)[-1] for name in store.find(path))


def _state(step: int) -> dict[str, Any]:
    return {"global_step": step, "state_dict": {"weight": torch.full((3, 4), float(step))}, "note": ["a", 1, None]}


def test_what_is_written_comes_back_and_two_are_kept(root: str) -> None:
    store = CheckpointStore(root)
    with store.opened() as nothing:
        assert nothing is None
    for step in (3, 6, 9):
        store.write(step, _state(step))
    assert _names(root) == [f"step-0000000{step}.{end}" for step in (6, 9) for end in ("ckpt", "json")]
    with CheckpointStore(root).opened() as found:
        assert found is not None
        step, file = found
        state = load_state(file)
    assert step == 9
    assert state["note"] == ["a", 1, None]
    assert torch.equal(state["state_dict"]["weight"], torch.full((3, 4), 9.0))


def test_a_checkpoint_without_its_marker_does_not_exist_and_is_cleared(root: str) -> None:
    store = CheckpointStore(root)
    store.write(3, _state(3))
    store.write(6, _state(6))
    files, path = fsspec.core.url_to_fs(root)
    files.rm_file(f"{path}/step-00000006.json")
    assert store.newest_step() == 3
    store.clean()
    assert _names(root) == ["step-00000003.ckpt", "step-00000003.json"]


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_checkpoint_is_passed_over_and_none_left_is_an_error(root: str, damage: str) -> None:
    store = CheckpointStore(root)
    files, path = fsspec.core.url_to_fs(root)

    def harm(step: int) -> None:
        name = f"{path}/step-{step:08d}.ckpt"
        payload = bytearray(files.cat_file(name))
        if damage == "gone":
            files.rm_file(name)
            return
        payload[len(payload) // 2] ^= 1
        files.pipe_file(name, bytes(payload) if damage == "flip" else bytes(payload[:-7]))

    for step in (3, 6):
        store.write(step, _state(step))
    harm(6)
    with store.opened() as found:
        assert found is not None
        assert found[0] == 3
    harm(3)
    with pytest.raises(DataError, match=r"damaged ones at steps: 3, 6"), store.opened():
        pass


def test_training_goes_on_while_a_checkpoint_is_written_and_the_next_one_waits(tmp_path: Path) -> None:
    gate, written = threading.Event(), []

    class Slow(CheckpointStore):
        def write(self, step: int, state: dict[str, Any]) -> None:
            assert gate.wait(10)
            written.append((step, float(state["weight"][0])))

    writer = CheckpointWriter(Slow(str(tmp_path)))
    weight = torch.ones(2)
    writer.save(1, {"weight": weight})
    weight.fill_(2)  # the next step: not in the checkpoint of this one
    assert written == []
    second = threading.Thread(target=writer.save, args=(2, {"weight": weight}))
    second.start()
    time.sleep(0.1)
    assert second.is_alive()
    gate.set()
    second.join()
    writer.wait()
    assert written == [(1, 1.0), (2, 2.0)]


def test_a_store_that_fails_is_told_of_at_the_next_checkpoint(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    writer = CheckpointWriter(CheckpointStore(str(blocked / "run")))
    writer.save(1, _state(1))
    with pytest.raises(OSError, match="file"):
        writer.wait()
    writer.wait()  # told once


def test_an_unknown_store_is_a_clear_error() -> None:
    with pytest.raises(Exception, match="expected") as error:
        CheckpointStore("nostore://bucket/run").newest_step()
    assert type(error.value).__name__ in ("UsageError", ServiceError.__name__)


class _Malicious:
    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self._place, "was run"))


@pytest.mark.parametrize("form", ["torch", "pickle", "instantiator"])
def test_nothing_but_tensors_and_plain_values_is_unpickled(tmp_path: Path, form: str) -> None:
    file, canary = tmp_path / "step-00000001.ckpt", tmp_path / "canary"
    if form == "pickle":
        file.write_bytes(pickle.dumps(_Malicious(canary)))
    elif form == "torch":
        torch.save({"state_dict": {}, "callbacks": _Malicious(canary)}, file)
    else:
        # Lightning calls what `_instantiator` names when it loads hyper-parameters
        torch.save({"state_dict": {}, "hyper_parameters": {"_instantiator": _Malicious(canary)}}, file)
    with pytest.raises(DataError, match="tensors and plain values"):
        load_state(file)
    assert not canary.exists()


def test_a_copy_holds_nothing_that_training_writes_to() -> None:
    state = {"a": [torch.zeros(2)], "b": (torch.zeros(1), {"c": torch.zeros(1)}), "d": 3}
    copy = to_memory(state)
    state["a"][0] += 1
    state["b"][1]["c"] += 1
    assert float(copy["a"][0].sum()) == 0
    assert float(copy["b"][1]["c"]) == 0
    assert isinstance(copy["b"], tuple)


def test_a_marker_says_length_and_hash(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    store.write(2, _state(2))
    marker = json.loads((tmp_path / "step-00000002.json").read_text())
    assert marker["bytes"] == (tmp_path / "step-00000002.ckpt").stat().st_size
    assert len(marker["sha256"]) == 64
