"""Files of several sequences or frames, as MSD prostate (T2, ADC) and brain tumour: the card picks, the record says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import SimpleITK as sitk

from preprocessing import schema
from preprocessing.harmonize.payload import decode
from preprocessing.yaml_card import read_card
from tests.preprocessing.test_build import build, reasons

CARD = """\
name: Sequences
modality: MR
licence: {{terms: internal}}
public: true
layouts:
  - image: "imagesTr/{{case}}.nii.gz"
    label: "labelsTr/{{case}}.nii.gz"
labels: {{kind: ByValue, values: {{1: prostate}}}}
intensity: {{rule: window, limits: [0, 255]}}
{frame}
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """One patient with two sequences that differ everywhere; the label has one frame for both."""
    root = tmp_path / "raw"
    voxels = np.arange(4 * 10 * 12, dtype=np.int16).reshape(4, 10, 12) % 200
    label = np.zeros(voxels.shape, dtype=np.uint8)
    label[1:3, 2:6, 3:9] = 1
    volumes = [sitk.GetImageFromArray(one) for one in (voxels, 255 - voxels)]
    truth = sitk.GetImageFromArray(label)
    for one in (*volumes, truth):
        one.SetSpacing((0.6, 0.6, 3.0))
    for folder, image in (("imagesTr", sitk.JoinSeries(volumes)), ("labelsTr", truth)):
        (root / folder).mkdir(parents=True)
        sitk.WriteImage(image, str(root / folder / "prostate_00.nii.gz"))
    return root


@pytest.mark.parametrize("frame", [0, 1])
def test_the_frame_of_the_card_is_read_and_recorded(raw: Path, tmp_path: Path, frame: int) -> None:
    (tmp_path / "card.yaml").write_text(CARD.format(frame=f"frame: {frame}"), encoding="utf-8")
    build(read_card(tmp_path / "card.yaml").card, raw, tmp_path / "out")
    case = pq.read_table(tmp_path / "out" / schema.CASES_FILE).to_pylist()[0]
    assert json.loads(case["intensity"])["frame"] == frame
    assert json.loads(case["source_voxels"]) == {"prostate": 2 * 4 * 6}
    shard = next((tmp_path / "out").glob("shard-*.parquet"))
    first = min(pq.read_table(shard).to_pylist(), key=lambda row: row["sample_id"])
    corner = int(decode(first["image"]).flat[0])
    # the sequences begin with 0 and 255, whichever way the slices are turned
    values = {int(decode(row["image"]).max()) for row in pq.read_table(shard).to_pylist()}
    assert (max(values) == 199) == (frame == 0), (values, corner)


@pytest.mark.parametrize(("frame", "said"), [("", "dimensions"), ("frame: 2", "dimensions")])
def test_without_a_frame_or_with_one_too_many_the_case_is_refused(
    raw: Path, tmp_path: Path, frame: str, said: str
) -> None:
    (tmp_path / "card.yaml").write_text(CARD.format(frame=frame), encoding="utf-8")
    build(read_card(tmp_path / "card.yaml").card, raw, tmp_path / "out")
    assert [reason for reason, _ in reasons(tmp_path / "out").values()] == [said]
