"""A few real datasets built once, for all assertions of this folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.storage import sha256_file
from preprocessing import schema
from preprocessing.build import build_dataset
from preprocessing.cards import DatasetCard, load_card

PARAMS: dict[str, Any] = {
    "harmonize": {"orientation": "LPS", "min_object_area_px": 1},
    "shards": {"target_bytes": 400_000},
    "splits": {"key": "segfoundry", "val": 0.15, "test": 0.15},
}
KEY = b"key of the tests"
_HIPPOCAMPUS = [
    f"{part}/hippocampus_{number}" for part in ("images", "labels") for number in ("00", "010", "118", "281")
]
# dataset -> files kept of the mirror's folder: all, or those that start with one of these
CHOSEN: dict[str, tuple[str, ...]] = {
    "dcmqi": ("",),
    "pyradiomics": ("",),
    "CHASE_DB1": ("Image_01", "Image_02", "Image_03"),
    "Kvasir-SEG": ("",),
    "BUSI": ("images/100", "masks/100"),
    "DSB2018": ("stage1_train/0",),
    "WBC_segmentation": ("Dataset 2", "Class", "README"),
    "MSD_Hippocampus_udacity": ("TestVolumes", *(f"TrainingSet/{part}" for part in _HIPPOCAMPUS)),
}


@dataclass(frozen=True)
class Version:
    card: DatasetCard
    root: Path
    folder: Path
    report: dict[str, Any]
    inventory: list[dict[str, Any]]

    def table(self, name: str) -> pa.Table:
        return pq.read_table(self.folder / name)

    def rows(self) -> list[dict[str, Any]]:
        return [row for name in sorted(self.report["shards"]) for row in self.table(name).to_pylist()]


def inventory_of(root: Path) -> list[dict[str, Any]]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [
        {"file": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in files
    ]


def build(card: DatasetCard, root: Path, out: Path, **options: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"pseudonym_key": KEY, "case_cache": None, "source_kind": "mirror"}
    return build_dataset(card, root, inventory_of(root), out, PARAMS, **{**defaults, **options})


@pytest.fixture(scope="session")
def versions(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Version]:
    base = tmp_path_factory.mktemp("versions")
    built = {}
    for name, starts in CHOSEN.items():
        root = base / "raw" / name
        for path in sorted((mirror / name).rglob("*")):
            relative = path.relative_to(mirror / name)
            if path.is_file() and relative.as_posix().startswith(starts):
                (root / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, root / relative)
        card, out = load_card(name), base / "data" / name
        report = build(card, root, out)
        assert schema.read_dataset_file(out) == {
            key: value for key, value in report.items() if not key.startswith("reused_")
        }
        built[name] = Version(card, root, out, report, inventory_of(root))
    return built
