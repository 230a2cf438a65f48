"""`hashes.parquet`: what finds a picture or volume again elsewhere; a function of the shards alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preprocessing import schema
from preprocessing.harmonize import look
from preprocessing.harmonize.payload import decode

Row = dict[str, Any]


def rows_of(samples: list[Row], dataset: str, case_id: str) -> list[Row]:
    """Rows of `HASHES_SCHEMA` of one case from its sample rows with their "look", in slice order."""
    volume = any(row["slice_index"] is not None for row in samples)
    found = [{**row["look"], "key": row["sample_id"], "case_id": case_id, "kind": "picture"} for row in samples]
    if volume:
        for row in found:
            row["kind"] = "slice"
        greys = {row["key"]: row["grey"] for row in found}
        code = look.volume_code([greys[key] for key in main_slices(greys)])
        found.append({"key": f"{dataset}/{case_id}", "case_id": case_id, "kind": "volume", "code": code})
    return [{name: row.get(name) for name in schema.HASHES_SCHEMA.names} for row in found]


def main_slices(keys: Iterable[str]) -> list[str]:
    """Of a volume's sample ids, those along the axis that most were cut along, in order: what its code is made of."""
    by_axis: dict[str, list[str]] = {}
    for key in keys:
        by_axis.setdefault(key.rpartition("/")[2][:1], []).append(key)
    _, longest = max(by_axis.items(), key=lambda item: (len(item[1]), item[0]))
    return sorted(longest)


def of_version(folder: Path) -> pa.Table:
    """The hashes of a dataset version; made from its shards where an older build wrote none."""
    path = folder / schema.HASHES_FILE
    if path.is_file():
        return pq.read_table(path, schema=schema.HASHES_SCHEMA)
    manifest = schema.read_manifest(folder).select(["sample_id", "case_id", "slice_index"])
    known = {row["sample_id"]: row for row in manifest.to_pylist()}
    cases: dict[str, list[Row]] = {}
    for sample, pixels in pictures(folder, known):
        digest = look.pixels_digest(pixels).hexdigest()
        cases.setdefault(known[sample]["case_id"], []).append({**known[sample], "look": look.look(pixels, digest)})
    dataset = schema.read_dataset_file(folder)["dataset"]
    rows = []
    for case, samples in cases.items():
        samples.sort(key=lambda row: row["slice_index"] or 0)
        rows += rows_of(samples, dataset, case)
    return table(rows)


def table(rows: list[Row]) -> pa.Table:
    """Rows as a table, sorted by key."""
    return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["key"])), schema=schema.HASHES_SCHEMA)


def joined(tables: list[pa.Table]) -> pa.Table:
    """The hashes of several cases as one table, sorted by key."""
    return pa.concat_tables([schema.HASHES_SCHEMA.empty_table(), *tables]).sort_by("key").combine_chunks()


def pictures(folder: Path, samples: Iterable[str]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Some samples' pixels, in the order of the shards; a row group that holds none of them is not read."""
    manifest = pq.read_table(folder / schema.MANIFEST_FILE, columns=["sample_id", "shard", "row"]).to_pylist()
    wanted = set(samples)
    places: dict[str, dict[int, str]] = {}
    for row in manifest:
        if row["sample_id"] in wanted:
            places.setdefault(row["shard"], {})[row["row"]] = row["sample_id"]
    for shard, rows in sorted(places.items()):
        start = 0
        with pq.ParquetFile(folder / shard) as file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if inside := sorted(row for row in rows if start <= row < end):
                    images = file.read_row_group(group, columns=["image"]).column("image")
                    yield from ((rows[row], decode(images[row - start].as_py())) for row in inside)
                start = end
