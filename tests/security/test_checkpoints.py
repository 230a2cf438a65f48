"""Weights that carry code: each is refused with a clear error, and nothing of it runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.errors import DataError
from tests.training.small import small_model
from training.sam3.checkpoint import load_into, open_checkpoint
from training.sam3.layout import to_official
from training.sam3.model import PromptableSam3


@pytest.fixture(scope="module")
def model() -> PromptableSam3:
    return small_model()


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path, how: str = "system") -> None:
        self.mark, self.how = mark, how

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if self.how == "system":
            return os.system, (f"touch '{self.mark}'",)
        if self.how == "eval":
            return eval, (f"__import__('pathlib').Path({str(self.mark)!r}).touch()",)
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


def _weights(model: PromptableSam3) -> dict[str, Any]:
    return {f"detector.{name}": value for name, value in to_official(model.state_dict()).items()}


def _save(content: Any, file: Path, *, legacy: bool = False) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)


def _in_zip(m: PromptableSam3, file: Path, mark: Path) -> None:
    _save({**_weights(m), "detector.extra": Payload(mark)}, file)


def _in_legacy(m: PromptableSam3, file: Path, mark: Path) -> None:
    _save({**_weights(m), "detector.extra": Payload(mark, "eval")}, file, legacy=True)


def _nested_in_optimiser(m: PromptableSam3, file: Path, mark: Path) -> None:
    _save({"model": _weights(m), "optimizer": {"state": [{"step": (1, {"x": Payload(mark, "exec")})}]}}, file)


def _nested_in_legacy(m: PromptableSam3, file: Path, mark: Path) -> None:
    _save({"model": _weights(m), "scaler": [[Payload(mark)]]}, file, legacy=True)


def _plain_pickle(m: PromptableSam3, file: Path, mark: Path) -> None:
    file.write_bytes(pickle.dumps({"model": Payload(mark)}))


def _the_whole_thing(m: PromptableSam3, file: Path, mark: Path) -> None:
    _save(Payload(mark, "eval"), file)


def _as_key(m: PromptableSam3, file: Path, mark: Path) -> None:
    _save({**_weights(m), ("key", Payload(mark)): torch.zeros(1)}, file)


def _whole_module(m: PromptableSam3, file: Path, mark: Path) -> None:
    _save(m, file)  # the popular way to save a model: a pickle of its class


def _instantiator(m: PromptableSam3, file: Path, mark: Path) -> None:
    hyper = {"_instantiator": "os.system", "command": f"touch '{mark}'"}
    _save({"state_dict": _weights(m), "hyper_parameters": hyper}, file)


def _instantiator_deep(m: PromptableSam3, file: Path, mark: Path) -> None:
    hyper = [{"inner": ({"_instantiator": "os.system"},)}]
    _save({"state_dict": _weights(m), "hyper_parameters": {"callbacks": hyper}}, file, legacy=True)


def _extra_pickle_in_zip(m: PromptableSam3, file: Path, mark: Path) -> None:
    """The weights' own pickle is replaced inside a good archive."""
    _save(_weights(m), file)
    with zipfile.ZipFile(file) as archive:
        members = {item.filename: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, payload in members.items():
            archive.writestr(name, pickle.dumps(Payload(mark, "exec")) if name.endswith("data.pkl") else payload)


def _compressed(m: PromptableSam3, file: Path, mark: Path) -> None:
    """A gigabyte of zeros in a megabyte."""
    _save(_weights(m), file)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/9999", bytes(1 << 26))


def _torchscript(m: PromptableSam3, file: Path, mark: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(file))


CASES = [
    _in_zip,
    _in_legacy,
    _nested_in_optimiser,
    _nested_in_legacy,
    _plain_pickle,
    _the_whole_thing,
    _as_key,
    _whole_module,
    _instantiator,
    _instantiator_deep,
    _extra_pickle_in_zip,
    _compressed,
    _torchscript,
]


@pytest.mark.parametrize("make", CASES, ids=[case.__name__.strip("_") for case in CASES])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_that_carries_code_is_refused(
    model: PromptableSam3, make: Callable[[PromptableSam3, Path, Path], None], tmp_path: Path
) -> None:
    file, mark = tmp_path / "checkpoint.pt", tmp_path / "it_ran"
    make(model, file, mark)
    before = [value.clone() for value in model.state_dict().values()]
    with pytest.raises(DataError, match=r"checkpoint\.pt: (refused|expected)"):
        load_into(model, file)
    assert not mark.exists(), "the payload ran"
    assert all(torch.equal(old, new) for old, new in zip(before, model.state_dict().values(), strict=True))


def test_the_payload_would_run_where_pickles_are_trusted(model: PromptableSam3, tmp_path: Path) -> None:
    """Else the test above could not fail."""
    for how in ("system", "eval", "exec"):
        mark = tmp_path / how
        torch.save({"x": Payload(mark, how)}, tmp_path / "trusted.pt")
        torch.load(tmp_path / "trusted.pt", weights_only=False)
        assert mark.exists()


def test_the_refusal_says_what_the_file_wanted_to_call(model: PromptableSam3, tmp_path: Path) -> None:
    _in_zip(model, tmp_path / "bad.pt", tmp_path / "mark")
    with pytest.raises(DataError, match=r"bad\.pt: refused: .* a call of posix\.system.*Nothing of it was run"):
        open_checkpoint(tmp_path / "bad.pt")


def test_neither_the_environment_nor_another_library_opens_the_door(
    model: PromptableSam3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    _in_zip(model, tmp_path / "bad.pt", tmp_path / "mark")
    with torch.serialization.safe_globals([os.system, (os.system, "posix.system")]):
        with pytest.raises(DataError, match="refused"):
            load_into(model, tmp_path / "bad.pt")
        assert torch.serialization.get_safe_globals(), "what the library allowed for its own files is put back"
    assert not (tmp_path / "mark").exists()


def test_a_shard_index_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(DataError, match="expected plain file names beside it"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_is_cut_off_is_a_data_error(model: PromptableSam3, tmp_path: Path, suffix: str) -> None:
    from training.sam3.checkpoint import save_official, save_weights

    file = tmp_path / f"cut{suffix}"
    if suffix == ".pt":
        save_official(file, model.config, model.state_dict())
    else:
        save_weights(file, model.state_dict())
    whole = file.read_bytes()
    for share in (0.0, 0.3, 0.9, 0.9999):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=rf"cut\{suffix}: "):
            load_into(model, file)
