"""Every dataset that no sample is at hand of: a small tree in its native layout comes out as it was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.storage import sha256_file
from preprocessing.cards import DatasetCard, RawCase, card_for, cases_of, load_card
from preprocessing.harmonize.case import CaseItem, CaseResult, process
from preprocessing.harmonize.geometry import to_original_grid
from preprocessing.pairing import files_below
from preprocessing.quality import account
from preprocessing.schema import rle
from tests.preprocessing.native.pictures import PICTURES
from tests.preprocessing.native.tree import SOUND, Made, make
from tests.preprocessing.native.volumes import VOLUMES

NATIVE = {**PICTURES, **VOLUMES}


def read(card: DatasetCard, cases: list[RawCase], root: Path) -> dict[str, CaseResult]:
    results = {}
    for case in cases:
        item = CaseItem(
            card=card_for(card, case),
            case=case,
            root=str(root),
            sha256={file: sha256_file(root / file) for file in case.files},
            orientation="LPS",
            min_object_area_px=1,
            shown_id=case.case_id,
            shown_files={file: file for file in case.files},
        )
        results[case.case_id] = process(item)
    return results


def drawn_again(result: CaseResult, concept: str, shape: tuple[int, ...]) -> np.ndarray:
    """The mask of a concept on the grid of the file, put together from the rows of a case."""
    rows = sorted(result.rows, key=lambda row: row["slice_index"] or 0)
    planes = []
    for row in rows:
        objects = [each for each in row["objects"] if each["concept"] == concept]
        marked = [rle.decode(each["rle"], row["height"], row["width"]) for each in objects]
        planes.append(np.any([np.zeros((row["height"], row["width"]), dtype=bool), *marked], axis=0))
    if len(shape) == 2:
        return planes[0]
    stacked = np.stack(planes, axis="zyx".index(rows[0]["axis"]))
    if result.columns["original_spacing_mm_xyz"] is None:
        return stacked
    return to_original_grid(stacked, result.columns)


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_a_native_tree_comes_out_as_it_was_drawn(name: str, tmp_path: Path) -> None:
    native, card = NATIVE[name], load_card(name)
    made = make(native, tmp_path)
    cases = list(cases_of(card)(tmp_path))
    results = read(card, cases, tmp_path)

    kept = {case_id for case_id, result in results.items() if result.refusal is None}
    refused = {case_id: result.refusal["reason"] for case_id, result in results.items() if result.refusal}
    assert refused == {_shown(case_id, results): reason for case_id, reason in made.refused.items()}
    assert kept == {_shown(case_id, results) for case_id in made.truth}
    assert len(cases) == len(kept) + len(refused) == 5

    for case_id, truth in made.truth.items():
        result = results[_shown(case_id, results)]
        said = {each["concept"] for row in result.rows for each in row["objects"]} - set(card.unions)
        assert said == set(truth)
        for concept, mask in truth.items():
            assert np.array_equal(drawn_again(result, concept, mask.shape), mask), (case_id, concept)
        absent = {concept for row in result.rows for concept in row["absent"]}
        assert absent <= set(card.concepts)

    _places(made, cases, results, name)
    where = account(
        card, files_below(tmp_path), [c for c in cases if c.case_id in kept], [c for c in cases if c.case_id in refused]
    )
    assert where.unclaimed == ()
    assert set(where.not_data) >= set(native.beside)


def _shown(case_id: str, results: dict[str, CaseResult]) -> str:
    """The card's name of a case whose native name may lack what tells the images of one study apart."""
    return case_id if case_id in results else next(name for name in results if name.startswith(case_id))


def _places(made: Made, cases: list[RawCase], results: dict[str, CaseResult], name: str) -> None:
    """Groups and official splits are those of the names."""
    native = NATIVE[name]
    ordered = [native.case_id.format(**native.names(case)) for case in SOUND]
    by_id = {case.case_id: case for case in cases}
    group = [by_id[_shown(case_id, results)].group for case_id in ordered]
    if native.together:
        assert group[0] == group[1] != group[2]
    else:
        assert len(set(group)) == 3
    assert tuple(by_id[_shown(case_id, results)].split for case_id in ordered) == native.splits
