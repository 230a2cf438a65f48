"""The public loaders of `training.loader_bench`, each used as its documentation shows; runs by itself.

    python loader_peers.py write LOADER FOLDER CODEC    the pictures FOLDER/CODEC/*.CODEC into the loader's container
    python loader_peers.py run LOADER FOLDER CODEC DECODER WORKERS BATCH SAMPLES    prints what `timed` returns

Only torch, numpy, the decoder and the loader itself are imported, so that the interpreter of `.venv-bench` can run it.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

PEERS = {"webdataset": "webdataset", "mosaicml-streaming": "streaming", "litdata": "litdata"}
"""Loader -> the module to import."""

SHARD_BYTES = 64 << 20
SHUFFLE_SAMPLES = 1_000
LOOK_EVERY = 20  # batches between two looks at the memory


def with_pillow(payload: bytes) -> Tensor:
    """Encoded picture to uint8 (3, height, width), as the loaders' documentation does it."""
    return _planes(np.array(Image.open(io.BytesIO(payload))))


def with_imagecodecs(payload: bytes) -> Tensor:
    """The same of PNG and HTJ2K, by the decoders that ours uses."""
    import imagecodecs

    png = payload.startswith(b"\x89PNG")
    return _planes(imagecodecs.png_decode(payload) if png else imagecodecs.htj2k_decode(payload))


DECODERS: dict[str, Callable[[bytes], Tensor]] = {"pillow": with_pillow, "imagecodecs": with_imagecodecs}


def _planes(array: Any) -> Tensor:
    planes = array.transpose(2, 0, 1) if array.ndim == 3 else np.broadcast_to(array, (3, *array.shape))
    return torch.from_numpy(np.ascontiguousarray(planes))


def memory_bytes() -> int:
    """Memory of this process and its workers now: proportional set size, so that shared pages count once.

    0 where the system is not Linux.
    """
    total = 0
    try:
        children = Path("/proc/self/task", str(os.getpid()), "children").read_text(encoding="ascii").split()
        for process in ("self", *children):
            lines = Path("/proc", process, "smaps_rollup").read_text(encoding="ascii").splitlines()
            total += next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return total
    return total


def cpu_seconds() -> float:
    """Processor time of this process and its ended workers."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in found)


def timed(loader: Iterable[Tensor]) -> dict[str, float]:
    """Samples, seconds from asking for the first batch to having the last, processor time, largest memory seen."""
    begun, used, seen, peak = time.perf_counter(), cpu_seconds(), 0, 0
    for number, images in enumerate(loader):
        seen += len(images)
        if number % LOOK_EVERY == LOOK_EVERY - 1:
            peak = max(peak, memory_bytes())
    seconds = time.perf_counter() - begun
    # workers have ended by now: the loader's iterator is gone
    return {"samples": seen, "seconds": seconds, "cpu_seconds": cpu_seconds() - used, "peak_bytes": peak}


def _payloads(folder: Path, codec: str) -> list[tuple[str, bytes]]:
    return [(path.stem, path.read_bytes()) for path in sorted((folder / codec).glob(f"*.{codec}"))]


def write_webdataset(pictures: list[tuple[str, bytes]], into: Path) -> None:
    """Tar shards."""
    import webdataset

    into.mkdir()
    with webdataset.ShardWriter(str(into / "shard-%05d.tar"), maxsize=SHARD_BYTES, verbose=0) as sink:
        for name, payload in pictures:
            sink.write({"__key__": name, "picture": payload})


def read_webdataset(shards: Path, decode: Callable[[bytes], Tensor], workers: int, batch: int) -> Iterable[Tensor]:
    """Shards shuffled, samples shuffled in a buffer, decoded in the workers."""
    import webdataset

    urls = sorted(str(path) for path in shards.glob("*.tar"))
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=len(urls), seed=1, empty_check=False)
        .shuffle(SHUFFLE_SAMPLES)
        .map(lambda sample: decode(sample["picture"]))
        .batched(batch, collation_fn=torch.stack)
    )
    loader: Iterable[Tensor] = webdataset.WebLoader(dataset, batch_size=None, num_workers=workers)
    return loader


def _streaming() -> Any:
    """MosaicML's package without its ready-made torchvision data sets, which it imports and nobody here uses.

    torchvision has no build for every torch; the loader itself asks for none of it.
    """
    sys.modules.setdefault("streaming.vision", ModuleType("streaming.vision"))
    import streaming

    return streaming


def write_mosaicml(pictures: list[tuple[str, bytes]], into: Path) -> None:
    """MDS shards."""
    with _streaming().MDSWriter(out=str(into), columns={"image": "bytes"}, size_limit=SHARD_BYTES) as sink:
        for _, payload in pictures:
            sink.write({"image": payload})


def read_mosaicml(shards: Path, decode: Callable[[bytes], Tensor], workers: int, batch: int) -> Iterable[Tensor]:
    """A `StreamingDataset` of local shards, shuffled its default way."""

    class Pictures(_streaming().StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Tensor:
            return decode(super().__getitem__(at)["image"])

    dataset = Pictures(local=str(shards), shuffle=True, batch_size=batch)
    return DataLoader(dataset, batch_size=batch, num_workers=workers)


def _payload(payload: bytes) -> dict[str, bytes]:
    return {"image": payload}


def write_litdata(pictures: list[tuple[str, bytes]], into: Path) -> None:
    """LitData chunks."""
    import litdata

    litdata.optimize(
        fn=_payload,
        inputs=[payload for _, payload in pictures],
        output_dir=str(into),
        chunk_bytes=SHARD_BYTES,
        num_workers=1,
    )


def read_litdata(shards: Path, decode: Callable[[bytes], Tensor], workers: int, batch: int) -> Iterable[Tensor]:
    """A `StreamingDataset` of local chunks in its `StreamingDataLoader`, shuffled."""
    import litdata

    class Pictures(litdata.StreamingDataset):
        def __getitem__(self, index: Any) -> Tensor:
            return decode(super().__getitem__(index)["image"])

    dataset = Pictures(str(shards), shuffle=True)
    loader: Iterable[Tensor] = litdata.StreamingDataLoader(dataset, batch_size=batch, num_workers=workers)
    return loader


WRITE: dict[str, Callable[[list[tuple[str, bytes]], Path], None]] = {
    "webdataset": write_webdataset,
    "mosaicml-streaming": write_mosaicml,
    "litdata": write_litdata,
}
READ: dict[str, Callable[[Path, Callable[[bytes], Tensor], int, int], Iterable[Tensor]]] = {
    "webdataset": read_webdataset,
    "mosaicml-streaming": read_mosaicml,
    "litdata": read_litdata,
}


def main(arguments: list[str]) -> None:
    """The command line."""
    verb, peer, folder, codec, *rest = arguments
    shards = Path(folder) / f"{peer}-{codec}"
    if verb == "write":
        WRITE[peer](_payloads(Path(folder), codec), shards)
        return
    workers, batch, samples = map(int, rest[1:])
    torch.set_num_threads(1)
    loader = READ[peer](shards, DECODERS[rest[0]], workers, batch)
    result = timed(loader)
    if result["samples"] != samples:
        message = f"{peer}: expected {samples} samples, found {result['samples']}"
        raise RuntimeError(message)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
