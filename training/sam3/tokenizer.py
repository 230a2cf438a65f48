"""SAM3's text prompt tokenizer: CLIP's byte-pair encoding behind the official cleaning.

The vocabulary is CLIP's (MIT licence), read as a file out of the installed open_clip_torch, which is
never imported. A model folder carries its own copy, so that neither a served model nor a machine that trains
from such a folder needs that package.
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

from infra.errors import DataError, UsageError

CONTEXT = 32
_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_VOCABULARY_SIZE = 49408
_BYTES, _SPECIAL = 256, 2
_MOST_KNOWN = 10_000  # prompts remembered, a few MB; then all are forgotten
_MERGES = _VOCABULARY_SIZE - 2 * _BYTES - _SPECIAL  # CLIP uses as many as fill its vocabulary
_FILES = ("tokenizer/tokenizer.json", "tokenizer.json", "merges.txt", _VOCABULARY, f"assets/{_VOCABULARY}")
_PLAIN = re.compile(r"[\t\n\r -%'-~]*")  # printable ASCII but "&", and white space: ftfy leaves it as it is


def clean(text: str) -> str:
    """Official cleaning: ftfy, HTML unescaped twice, white space collapsed, lower case.

    Without ftfy plain ASCII is cleaned alike; anything else is a UsageError, since its ids would be others.
    """
    try:
        import ftfy
    except ModuleNotFoundError:
        if not _PLAIN.fullmatch(text):
            msg = f"prompt {text!r}: expected plain ASCII, since ftfy is not installed here. Install ftfy, or reword it"
            raise UsageError(msg) from None
    else:
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


class PromptTokenizer:
    """Prompts to ids (prompts, 32), padded with 0, as the official tokenizer gives them."""

    def __init__(self, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
        self._vocabulary, self._merges = vocabulary, merges
        self._clip = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)
        self._known: dict[str, list[int]] = {}  # a run asks the same few hundred prompts in every batch

    @classmethod
    def find(cls, place: str = "", start: str = "") -> PromptTokenizer:
        """From `place` where it is named, else from the installed open_clip_torch, else from beside `start` weights.

        Raises:
            UsageError: nowhere found; it says where to get one.
        """
        if place:
            return cls.read(Path(place))
        try:
            return cls.from_installed()
        except (FileNotFoundError, importlib.metadata.PackageNotFoundError):
            folder = Path(start) if Path(start).is_dir() else Path(start).parent
            if start and any((folder / name).is_file() for name in _FILES):
                return cls.read(folder)
        msg = (
            "tokenizer: expected CLIP's vocabulary, found neither open_clip_torch nor one beside the start weights. "
            f"Install open_clip_torch, or name a model folder or a file ({', '.join(_FILES)}) as the run's tokenizer"
        )
        raise UsageError(msg)

    @classmethod
    def from_installed(cls) -> PromptTokenizer:
        """Build from CLIP's merge list in the installed open_clip_torch."""
        for file in importlib.metadata.files("open_clip_torch") or ():
            if file.name == _VOCABULARY:
                return cls.read(Path(str(file.locate())))
        msg = f"open_clip_torch is installed without {_VOCABULARY}; reinstall it from requirements.lock"
        raise FileNotFoundError(msg)

    @classmethod
    def read(cls, path: Path) -> PromptTokenizer:
        """From a file of merges in any form it comes in, or a folder with one.

        The forms: what `save` writes, transformers' `tokenizer.json` or `merges.txt`, the official gzipped list.
        """
        if path.is_dir():
            found = [path / name for name in _FILES if (path / name).is_file()]
            if not found:
                msg = f"tokenizer: {path.name}: expected one of {', '.join(_FILES)} in the folder, found none of them"
                raise DataError(msg)
            path = found[0]
        if path.suffix == ".json":
            stored = json.loads(path.read_text(encoding="utf-8"))
            listed = stored.get("merges") or stored.get("model", {}).get("merges") or []
        else:
            packed = path.read_bytes()
            text = (gzip.decompress(packed) if path.suffix == ".gz" else packed).decode("utf-8")
            listed = text.split("\n")[1:]  # the first line is a header
        pairs = [tuple(item.split() if isinstance(item, str) else item) for item in listed[:_MERGES]]
        merges = [(left, right) for left, right in (pair for pair in pairs if len(pair) == 2)]
        if len(merges) != _MERGES:
            msg = f"tokenizer: {path.name}: expected CLIP's {_MERGES} merges, found {len(merges)}. Use SAM3's own file"
            raise DataError(msg)
        return cls(_vocabulary_of(merges), merges)

    @classmethod
    def load(cls, folder: Path) -> PromptTokenizer:
        """Read what `save` wrote."""
        return cls.read(folder / "tokenizer.json")

    def save(self, folder: Path) -> None:
        """Write the merge list, from which the vocabulary follows."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(
            json.dumps({"merges": self._merges}, ensure_ascii=False), encoding="utf-8"
        )

    def __call__(self, prompts: list[str]) -> Tensor:
        """Token ids (prompts, 32) int64; a longer prompt is cut and ends with the end token."""
        ids = torch.zeros(len(prompts), CONTEXT, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens = self._tokens(prompt)
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        return ids

    def _tokens(self, prompt: str) -> list[int]:
        found = self._known.get(prompt)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[prompt] = self._clip(clean(prompt), truncation=True, max_length=CONTEXT)["input_ids"]
        return found


def _vocabulary_of(merges: list[tuple[str, str]]) -> dict[str, int]:
    """CLIP's order: byte symbols, the same at the end of a word, the merges, the two special tokens."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(_BYTES) if byte not in set(printable)]
    symbols = [chr(byte) for byte in printable] + [chr(_BYTES + index) for index in range(len(hidden))]
    words = [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(pair) for pair in merges)]
    return {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
