"""`train.start: champion`: which version a training starts from, written down before it starts.

A stage is a function of its dependencies, and a champion changes without one of them changing. So the version is
noted in `recipes/train.json`, together with what it was chosen for: data, recipe and code. Only when those change is
the champion of that day chosen. Promoting a model therefore makes nothing stale, and a rerun starts from the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.errors import UsageError
from infra.storage import digest_of, read_json, write_json
from pipelines.requests import learnt_from, read_requests
from pipelines.workspace import MODEL_NAME, Workspace
from preprocessing.schema import DATASET_FILE, read_dataset_file
from registry.intents import CHAMPION
from registry.store import RegistryStore

FROM_CHAMPION = "champion"
PIN = "start_from"  # key of recipes/train.json: {"for", "version", "weights_sha256"}; no version: our own start
_FOLDER = "starts"

Document = dict[str, Any]


def kept(place: Workspace, recipe: Document) -> Document:
    """A new `recipes/train.json` with the pin of the present one, where `train.start` asks for the champion."""
    path = place.recipe("train")
    if place.params().train.start != FROM_CHAMPION or not path.is_file():
        return recipe
    present = read_json(path)
    return {**recipe, PIN: present[PIN]} if PIN in present else recipe


def chosen_for(place: Workspace) -> str:
    """Digest of what a start is chosen for: data versions, resolved recipe and code, `train` section."""
    params = place.params()
    recipe = {key: value for key, value in read_json(place.recipe("train")).items() if key != PIN}
    digests = {
        name: read_dataset_file(place.data / name)["manifest_digest"]
        for name in params.datasets
        if (place.data / name / DATASET_FILE).is_file()
    }
    return digest_of([recipe, params.train.model_dump(), digests])


def pin(place: Workspace, store: RegistryStore) -> Document | None:
    """Note the present champion as the start, where data, recipe or code changed since one was noted.

    Returns the pin; None where `train.start` does not ask for the champion.
    """
    if place.params().train.start != FROM_CHAMPION:
        return None
    path = place.recipe("train")
    recipe, wanted = read_json(path), chosen_for(place)
    known: Document | None = recipe.get(PIN)
    if known is not None and known["for"] == wanted:
        return known
    number, _ = champion_of_now(place, store)
    sha256 = store.resolve(MODEL_NAME, number).weights_sha256 if number is not None else ""
    fresh: Document = {"for": wanted, "version": number, "weights_sha256": sha256}
    write_json(path, {**recipe, PIN: fresh})
    return fresh


def champion_of_now(place: Workspace, store: RegistryStore) -> tuple[int | None, str]:
    """The champion's version to start from, or None and why not.

    A champion that learnt from a withdrawn case, or from weights that did, would carry the case on into the model
    that is to replace it.
    """
    number = store.aliases(MODEL_NAME).get(CHAMPION)
    if number is None:
        return None, "no champion yet"
    versions = store.versions(MODEL_NAME)
    for request in read_requests(place):
        if number in learnt_from(request, versions):
            return None, f"the champion, version {number}, learnt from {request['key']}, which was withdrawn"
    return number, ""


def resolved(place: Workspace, params: Document) -> Document:
    """The `train` section with the pinned champion's folder in place of "champion"."""
    if params.get("start") != FROM_CHAMPION:
        return params
    known = read_json(place.recipe("train")).get(PIN)
    if known is None:
        msg = (
            "params.yaml: train.start: champion: expected the version to start from in recipes/train.json, found none. "
            "Run: segfoundry flow run retrain, or segfoundry train"
        )
        raise UsageError(msg)
    return {**params, "start": str(folder(place, known)) if known["version"] is not None else ""}


def folder(place: Workspace, known: Document) -> Path:
    """The pinned version's model folder on this machine, fetched where it is not there yet."""
    from pipelines.release import open_store
    from registry.weights import fetch_candidate

    target = place.state / _FOLDER / str(known["weights_sha256"])
    return fetch_candidate(open_store(place), MODEL_NAME, known["version"], target)
