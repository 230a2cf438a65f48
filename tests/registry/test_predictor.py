from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infra.errors import DataError, UsageError
from infra.storage import write_json
from preprocessing.schema import rle
from registry.predictor import Predictor, decode_image, encode_png, load_engine, rows_of
from tests.registry import samples


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(load_engine(samples.write_candidate(tmp_path / "candidate")))


def test_every_form_of_an_image_is_the_same_image(tmp_path: Path):
    image = samples.picture()
    payload = encode_png(image)
    (tmp_path / "x.png").write_bytes(payload)
    forms = [payload, base64.b64encode(payload).decode(), str(tmp_path / "x.png"), tmp_path / "x.png", image]
    for form in forms:
        assert np.array_equal(decode_image(form), image)
    assert decode_image(image[:, :, 0]).shape == (48, 64, 3)


def test_rows_keep_their_order_and_one_image_is_seen_once(predictor: Predictor):
    image = samples.picture()
    seen: list[list[str]] = []
    inner = predictor._segmenter
    original = inner.segment

    def counted(pixels: np.ndarray, prompts: list[str]) -> list[dict[str, object]]:
        seen.append(prompts)
        return original(pixels, prompts)

    inner.segment = counted  # type: ignore[method-assign]
    frame = pd.DataFrame(
        {"image": [image, image // 2, image], "prompt": ["bright spot", "bright spot", "no such thing"]}
    )
    answers = predictor.predict(frame)
    assert [one["prompt"] for one in answers] == ["bright spot", "bright spot", "no such thing"]
    assert seen == [["bright spot", "no such thing"], ["bright spot"]]
    mask = rle.decode(answers[0]["rle"]["counts"], 48, 64)
    assert np.array_equal(mask, image[:, :, 0] > 100)
    assert answers[0]["instances"][0]["bbox_xyxy"] == [30.0, 12.0, 50.0, 22.0]
    assert answers[2]["instances"] == []


@pytest.mark.parametrize(
    ("value", "word"),
    [(b"no picture", "cannot be decoded"), ("no/such/file.png", "no such file"), (7, "found int"),
     (np.zeros((4, 4, 2), np.uint8), "found uint8"), (np.zeros((4, 4)), "float64")],
)  # fmt: skip
def test_what_is_no_image_is_said(value: object, word: str):
    with pytest.raises(DataError, match=word):
        decode_image(value)


@pytest.mark.parametrize(
    "value", [[{"image": b""}], {"prompt": "x"}, "text", [{"image": b"", "prompt": " "}], [{"image": b"", "prompt": 3}],
              {"image": [b"", b""], "prompt": ["one"]}]
)  # fmt: skip
def test_rows_that_ask_nothing_are_refused(value: object):
    with pytest.raises(UsageError, match="input"):
        rows_of(value)


@pytest.mark.parametrize("engine", [None, "noclass", "no_such_module:Segmenter", "threshold_engine:Nobody"])
def test_an_engine_that_is_not_there_is_named(tmp_path: Path, engine: str | None):
    write_json(tmp_path / "config.json", {"engine": engine})
    with pytest.raises(DataError, match="engine"):
        load_engine(tmp_path)
