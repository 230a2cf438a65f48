"""Which split a group is in, and what it is called.

A keyed hash of the group alone decides, so that a group never moves when data is added, whatever the
order. With few groups the shares of `val` and `test` are only met on average.
"""

from __future__ import annotations

import hashlib
import hmac

from preprocessing.cards import SplitHint

_STEPS = 2**64


def split_of(dataset: str, group: str, key: str, val: float, test: float, hint: SplitHint = "") -> str:
    """ "train", "val" or "test" of a group.

    `dataset` is the card's domain. `hint` is the official split: train, val and test are kept;
    "development" is divided between train and val in the ratio of their shares. Raises ValueError for
    shares that leave no room for training.
    """
    if val < 0 or test < 0 or val + test >= 1:
        msg = f"splits.val + splits.test must lie in [0, 1), found {val} + {test}"
        raise ValueError(msg)
    if hint in ("train", "val", "test"):
        return hint
    position = _position(dataset, group, key)
    if hint == "development":
        return "val" if position < val / (1 - test) else "train"
    if position < test:
        return "test"
    return "val" if position < test + val else "train"


def pseudonym(domain: str, text: str, key: bytes, prefix: str = "g") -> str:
    """A name that says nothing about `text` without the key: HMAC-SHA-256, 80 bits of it in hex."""
    digest = hmac.new(key, f"{domain}\0{text}".encode(), hashlib.sha256).hexdigest()
    return f"{prefix}-{digest[:20]}"


def _position(dataset: str, group: str, key: str) -> float:
    """A number in [0, 1), even over groups."""
    digest = hmac.new(key.encode(), f"{dataset}\0{group}".encode(), hashlib.blake2b).digest()
    return int.from_bytes(digest[:8], "big") / _STEPS
