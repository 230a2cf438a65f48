"""Shared fixtures: the mirror of real sample data, found only through SEGFOUNDRY_MIRROR."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mirror() -> Path:
    value = os.environ.get("SEGFOUNDRY_MIRROR", "")
    if not value:
        pytest.skip("SEGFOUNDRY_MIRROR is not set: real-data tests need a mirror of the sample datasets")
    root = Path(value).resolve()
    if not root.is_dir():
        pytest.fail(f"SEGFOUNDRY_MIRROR={value} is not a folder")
    return root
