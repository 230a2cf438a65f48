"""SAM3's text prompt tokenizer: CLIP's byte-pair encoding behind the official cleaning.

The vocabulary is CLIP's (MIT licence), read as a file out of the installed open_clip_torch, which is
never imported. A checkpoint folder carries its own copy, so a served model needs no such package.
"""

from __future__ import annotations

import gzip
import html
import importlib.metadata
import json
import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

CONTEXT = 32
_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_VOCABULARY_SIZE = 49408
_BYTES, _SPECIAL = 256, 2
_MOST_KNOWN = 10_000  # prompts remembered, about 3 MB


def clean(text: str) -> str:
    """Official cleaning: ftfy, HTML unescaped twice, white space collapsed, lower case."""
    import ftfy  # a bare GPU machine, where prompts may come as ids, does without

    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text)))).strip().lower()


class PromptTokenizer:
    """Prompts to ids (prompts, 32), padded with 0, as the official tokenizer gives them."""

    def __init__(self, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
        self._vocabulary, self._merges = vocabulary, merges
        self._clip = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)
        self._known: dict[str, Tensor] = {}  # a run asks the same few hundred prompts in every batch

    @classmethod
    def from_installed(cls) -> PromptTokenizer:
        """Build from CLIP's merge list in the installed open_clip_torch."""
        for file in importlib.metadata.files("open_clip_torch") or ():
            if file.name == _VOCABULARY:
                lines = gzip.decompress(Path(str(file.locate())).read_bytes()).decode("utf-8").split("\n")
                # the file's first line is a header; CLIP uses just as many merges as fill its vocabulary
                count = _VOCABULARY_SIZE - 2 * _BYTES - _SPECIAL
                merges = [(left, right) for left, right in (line.split() for line in lines[1 : count + 1])]
                return cls(_vocabulary_of(merges), merges)
        msg = f"open_clip_torch is installed without {_VOCABULARY}; reinstall it from requirements.lock"
        raise FileNotFoundError(msg)

    @classmethod
    def load(cls, folder: Path) -> PromptTokenizer:
        """Read what `save` wrote."""
        stored = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        merges = [(left, right) for left, right in stored["merges"]]
        return cls(_vocabulary_of(merges), merges)

    def save(self, folder: Path) -> None:
        """Write the merge list, from which the vocabulary follows."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(
            json.dumps({"merges": self._merges}, ensure_ascii=False), encoding="utf-8"
        )

    def __call__(self, prompts: list[str]) -> Tensor:
        """Token ids (prompts, 32) int64; a longer prompt is cut and ends with the end token."""
        for prompt in prompts:
            if prompt not in self._known:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[prompt] = self._ids(prompt)
        return torch.stack([self._known[prompt] for prompt in prompts]) if prompts else torch.zeros(0, CONTEXT).long()

    def _ids(self, prompt: str) -> Tensor:
        tokens = self._clip(clean(prompt), truncation=True, max_length=CONTEXT)["input_ids"]
        ids = torch.zeros(CONTEXT, dtype=torch.long)
        ids[: len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        return ids


def _vocabulary_of(merges: list[tuple[str, str]]) -> dict[str, int]:
    """CLIP's order: byte symbols, the same at the end of a word, the merges, the two special tokens."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(_BYTES) if byte not in set(printable)]
    symbols = [chr(byte) for byte in printable] + [chr(_BYTES + index) for index in range(len(hidden))]
    words = [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(pair) for pair in merges)]
    return {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
