"""What a key means: a case, a group, a sample, or the name that a closed dataset's files had before it was hidden."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.errors import SegfoundryError, ServiceError, UsageError
from infra.settings import load_settings
from infra.storage import read_json
from pipelines.audits.record import Record
from pipelines.workspace import pseudonym_key
from preprocessing.schema import MANIFEST_FILE

_NEAR = 5
_NEAR_POOL = 4000  # identifiers that are compared letter by letter
_NEAR_LETTERS = 3


@dataclass(frozen=True)
class Key:
    """What to search for. `shown` never holds an original name of a closed dataset.

    `identifiers` are case or group ids by dataset; "" stands for every dataset. `sample` is the whole sample id where
    the key named one slice or tile.
    """

    shown: str
    identifiers: dict[str, tuple[str, ...]]
    sample: str = ""
    by_name: bool = False  # found by an original name

    def of(self, dataset: str) -> tuple[str, ...]:
        """The identifiers to search a dataset for."""
        return tuple(dict.fromkeys((*self.identifiers.get(dataset, ()), *self.identifiers.get("", ()))))


def find(record: Record, key: str) -> Key:
    """What `key` names in some data version; UsageError with near names where it names nothing.

    Asked in this order: as manifests write it (alone, as dataset/identifier, or a sample id), as the patient's or
    case's own name by the pseudonym key of this machine, and as a file that `names/<dataset>.json` knows.
    """
    datasets = record.all_datasets()
    if not datasets:
        msg = f"{record.place.root}: expected a data version, found none. Run: segfoundry data ingest"
        raise UsageError(msg)
    for chosen in (_as_written(key, datasets), *_as_hidden(record, key, datasets)):
        if held := _held(record, chosen):
            return _hidden(held) if chosen.by_name else chosen
    near = near_matches(record, key)
    hint = f"near: {', '.join(near)}" if near else "and nothing like it"
    name = "" if not any(_names_file(record, one) for one in datasets) else ", nor a name that this machine knows"
    msg = (
        f"{key}: expected a case, group or sample of a data version of {record.place.root}{name}, found none; {hint}. "
        "Give dataset/case_id, a group_id, or a sample_id"
    )
    raise UsageError(msg)


def _as_written(key: str, datasets: list[str]) -> Key:
    dataset, _, rest = key.partition("/")
    if dataset in datasets and rest:
        case, _, slice_ = rest.partition("/")
        return Key(key if not slice_ else f"{dataset}/{case}", {dataset: (case,)}, key if slice_ else "")
    return Key(key, {"": (key,)})


def _as_hidden(record: Record, key: str, datasets: list[str]) -> Iterable[Key]:
    """The key as an original name, in the one dataset it may begin with or in all."""
    dataset, _, rest = key.partition("/")
    wanted, name = ([dataset], rest) if dataset in datasets and rest else (datasets, key)
    hashed = {one: ids for one in wanted if (ids := _pseudonyms(record, one, name))}
    yield _hidden(hashed)
    yield _hidden({one: ids for one in wanted if (ids := _by_file(record, one, name))})


def _hidden(identifiers: dict[str, tuple[str, ...]]) -> Key:
    shown = ", ".join(f"{dataset}/{name}" for dataset, names in identifiers.items() for name in names)
    return Key(shown, identifiers, by_name=True)


def _pseudonyms(record: Record, dataset: str, name: str) -> tuple[str, ...]:
    from preprocessing.names import shown_case
    from preprocessing.splits import pseudonym

    try:
        card = record.place.card(dataset)
    except SegfoundryError:  # a dataset of old versions whose card is gone
        return ()
    secret = pseudonym_key(load_settings())
    return (shown_case(card, name, secret), pseudonym(card.domain, name, secret))


def _names_file(record: Record, dataset: str) -> bool:
    return (record.place.state / "names" / f"{dataset}.json").is_file()


def _by_file(record: Record, dataset: str, name: str) -> tuple[str, ...]:
    """Cases with a file whose path, name, stem or folder is `name`, by the names that only this machine has."""
    if not _names_file(record, dataset):
        return ()
    known = read_json(record.place.state / "names" / f"{dataset}.json")
    files = [shown for shown, real in known.items() if _is_called(str(real), name)]
    if not files:
        return ()
    wanted = pa.array(files)
    found: set[str] = set()
    for tag in _distinct(record, dataset):
        table = pq.read_table(record.file(dataset, tag, MANIFEST_FILE), columns=["case_id", "source"])
        sources = table.column("source").combine_chunks()
        names = pc.struct_field(pc.list_flatten(sources), "file")
        rows = pc.list_parent_indices(sources).filter(pc.is_in(names, value_set=wanted))
        found.update(table.column("case_id").take(rows).to_pylist())
    return tuple(sorted(found))


def _is_called(path: str, name: str) -> bool:
    parts = PurePosixPath(path).parts
    return name == path or name in parts or name == parts[-1].partition(".")[0]


def _distinct(record: Record, dataset: str) -> list[str]:
    """Of the data versions that hold a dataset, the newest of each content."""
    first: dict[str, str] = {}
    for tag in record.tags:
        if folder := record.datasets(tag).get(dataset):
            first[folder] = tag
    return list(first.values())


def _held(record: Record, key: Key) -> dict[str, tuple[str, ...]]:
    """Dataset -> those of the key's identifiers that some data version has; empty where it has none."""
    found: dict[str, set[str]] = {}
    for tables in record.manifests().values():
        for dataset, manifest in tables.items():
            names = key.of(dataset)
            if not names:
                continue
            try:
                rows = manifest.find(names)
            except ServiceError:  # this version cannot be read: another one may hold it
                continue
            if key.sample:
                rows = rows.filter(pc.equal(rows.column("sample_id"), key.sample))
            there = {*rows.column("case_id").to_pylist(), *rows.column("group_id").to_pylist()}
            if hit := there.intersection(names):
                found.setdefault(dataset, set()).update(hit)
    return {dataset: tuple(sorted(names)) for dataset, names in sorted(found.items())}


def near_matches(record: Record, key: str) -> list[str]:
    """Up to 5 "dataset/case_id" or group ids of the newest versions that are spelt like `key`, best first."""
    wanted = key.lower()
    dataset, _, rest = key.partition("/")
    found: list[tuple[float, str]] = []
    for name in record.all_datasets():
        if rest and dataset in record.all_datasets() and name != dataset:
            continue
        alone = (rest or key).lower() if rest and name == dataset else wanted
        for identifier in _spelt_like(record, name, alone):
            ratio = difflib.SequenceMatcher(None, alone, identifier.lower()).ratio()
            found.append((ratio, f"{name}/{identifier}"))
    best = sorted((one for one in found if one[0] >= 0.5), key=lambda one: (-one[0], one[1]))
    return [name for _, name in best[:_NEAR]]


def _spelt_like(record: Record, dataset: str, wanted: str) -> list[str]:
    """Identifiers worth a look: those that share the beginning or the end, hold `wanted` or are held by it."""
    try:
        file = record.file(dataset, _distinct(record, dataset)[-1], MANIFEST_FILE)
    except ServiceError:
        return []
    columns = ["case_id", "group_id"]
    table = pq.read_table(file, columns=columns, read_dictionary=columns)
    found: list[str] = []
    for column in columns:
        texts = pc.cast(pc.unique(table.column(column).unify_dictionaries()), pa.string())
        found += _pool(texts, wanted).to_pylist()
    return list(dict.fromkeys(found))


def _pool(texts: pa.Array, wanted: str) -> pa.Array:
    """At most `_NEAR_POOL` of `texts`: those that share the longest beginning, or the longest end, with `wanted`."""
    if len(texts) <= _NEAR_POOL:
        return texts
    lower = pc.utf8_lower(texts)
    keep = pc.match_substring(lower, wanted)
    for matches, parts in (
        (pc.starts_with, [wanted[:letters] for letters in range(len(wanted), _NEAR_LETTERS - 1, -1)]),
        (pc.ends_with, [wanted[-letters:] for letters in range(len(wanted), _NEAR_LETTERS - 1, -1)]),
    ):
        for part in parts:
            like = matches(lower, part)
            if pc.sum(like).as_py() >= _NEAR:
                keep = pc.or_(keep, like)
                break
    return texts.filter(keep).slice(0, _NEAR_POOL)
