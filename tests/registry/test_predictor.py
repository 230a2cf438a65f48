from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools import mask as coco

from infra.errors import DataError, SegfoundryError, UsageError
from infra.storage import write_json
from preprocessing.schema import rle
from registry.predictor import Predictor, encode_png, load_engine
from registry.reading import rows_of
from tests.registry import samples


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor.load(samples.write_candidate(tmp_path / "candidate"))


def test_every_form_of_a_picture_is_the_same_picture(predictor: Predictor, tmp_path: Path):
    image = samples.picture()
    payload = encode_png(image)
    for ending in ("png", "tiff", "bmp"):
        Image.fromarray(image).save(tmp_path / f"x.{ending}")
    forms = [payload, base64.b64encode(payload).decode(), *(tmp_path / f"x.{one}" for one in ("png", "tiff", "bmp")),
             str(tmp_path / "x.png"), image, image[:, :, 0], image.tolist()]  # fmt: skip
    answers = [predictor.predict({"image": form, "prompt": "bright spot"})[0] for form in forms]
    assert all(answer == answers[0] for answer in answers)
    assert (answers[0]["kind"], answers[0]["size"], answers[0]["axes"]) == ("picture", [48, 64], "yx")


def test_a_mask_comes_as_rle_as_an_array_and_as_a_file(predictor: Predictor):
    row = {"image": samples.picture(), "prompt": "bright spot"}
    truth = samples.picture()[:, :, 0] > 100
    [coded], [array], [file] = (predictor.predict(row, {"masks": form}) for form in ("rle", "array", "file"))
    assert np.array_equal(coco.decode(coded["rle"]), truth)  # pycocotools reads it
    assert np.array_equal(array["mask"], truth)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(file["file"])))) == 255, truth)
    assert np.array_equal(array["instances"][0]["mask"], truth)
    with pytest.raises(UsageError, match="masks: expected one of rle, array, file, found 'png'"):
        predictor.predict(row, {"masks": "png"})


def test_only_files_of_the_served_folder_are_read_where_there_is_one(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for folder in ("served", "private"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(encode_png(samples.picture()))
    monkeypatch.setenv("SEGFOUNDRY_SERVED_FOLDER", str(tmp_path / "served"))
    assert predictor.predict({"image": str(tmp_path / "served" / "x.png"), "prompt": "vessel"})
    (tmp_path / "served" / "link.png").symlink_to(tmp_path / "private" / "x.png")
    for path in (tmp_path / "private" / "x.png", tmp_path / "served" / ".." / "private" / "x.png",
                 tmp_path / "served" / "link.png"):  # fmt: skip
        with pytest.raises(DataError, match="SEGFOUNDRY_SERVED_FOLDER"):
            predictor.predict({"image": str(path), "prompt": "vessel"})


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
    [(b"no picture", "expected a picture that decodes"), ("no/such/file.png", "no such file"), (7, "found int"),
     (np.zeros((4, 4, 2), np.uint8), "found uint8"), (np.zeros((4, 4)), "float64"), (b"PK\x03\x04broken", "zip"),
     ({"volume": np.zeros((4, 4))}, "shape .z, y, x."), ([[1, 2], [3]], "rows of one length")],
)  # fmt: skip
def test_what_is_no_image_is_said(predictor: Predictor, value: object, word: str):
    with pytest.raises(SegfoundryError, match=word):
        predictor.predict({"image": value, "prompt": "vessel"})


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
