"""Single rows of a local dataset version's shards, by shard and row number as its manifest counts them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import DataError
from training.store import check_shard, shards_of

_GROUPS = 4  # row groups kept: what is asked for together mostly lies in one or two


class ShardRows:
    """Rows of a dataset version in any order; every shard is checked when it is opened first.

    Args:
        folder: the dataset version.
        columns: of the shards that are read.
    """

    def __init__(self, folder: Path, columns: list[str]) -> None:
        self._dataset, self._columns = folder.name, columns
        self._shards = {shard.path.name: shard for shard in shards_of(folder.parent, folder.name)}
        self._files: dict[str, pq.ParquetFile] = {}
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()

    def row(self, shard: str, number: int) -> dict[str, Any]:
        """One row. DataError where the shard is damaged or has no such row."""
        file = self._files.get(shard)
        if file is None:
            check_shard(self._shards[shard])
            file = self._files[shard] = pq.ParquetFile(self._shards[shard].path)
        group, at = 0, number
        while group < file.num_row_groups and at >= file.metadata.row_group(group).num_rows:
            at -= file.metadata.row_group(group).num_rows
            group += 1
        if group == file.num_row_groups:
            msg = (
                f"{self._dataset}: {shard}: expected row {number} of the manifest, found fewer rows. "
                f"They are of different versions: run `dvc checkout --force`, or ingest {self._dataset} again"
            )
            raise DataError(msg)
        key = (shard, group)
        if key not in self._groups:
            self._groups[key] = file.read_row_group(group, columns=self._columns, use_threads=False)
            if len(self._groups) > _GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        [found] = self._groups[key].slice(at, 1).to_pylist()
        row: dict[str, Any] = found
        return row
