from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.sam3 import tokenizer as module
from training.sam3.tokenizer import PromptTokenizer


def test_ids_equal_the_official_ones(golden: Path) -> None:
    prompts = json.loads((golden / "tokenizer.json").read_text())["prompts"]
    ids = PromptTokenizer.from_installed()([entry["text"] for entry in prompts])
    wrong = [entry["text"] for entry, row in zip(prompts, ids.tolist(), strict=True) if row != entry["ids"]]
    assert wrong == []
    assert all(
        (row != 0).tolist() == [bool(valid) for valid in entry["mask_valid"]]
        for entry, row in zip(prompts, ids, strict=True)
    )


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    tokenizer = PromptTokenizer.from_installed()
    tokenizer.save(tmp_path)
    texts = ["left ventricle blood pool", "tumour"]
    assert PromptTokenizer.load(tmp_path)(texts).tolist() == tokenizer(texts).tolist()


def test_what_is_remembered_and_forgotten_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["liver", "left kidney", "liver", "spleen", "left kidney", "pancreas", "liver"]
    fresh = [PromptTokenizer.from_installed()([text]).tolist()[0] for text in texts]
    monkeypatch.setattr(module, "_MOST_KNOWN", 2)  # forgets in the middle of a call
    tokenizer = PromptTokenizer.from_installed()
    first = tokenizer(texts)
    first += 1  # a caller's own tensor, not the memory
    assert tokenizer(texts).tolist() == fresh
