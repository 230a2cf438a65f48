"""Shared fixtures of the training tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.training import golden as values


@pytest.fixture(scope="session")
def golden() -> Path:
    found = values.folder()
    if found is None and os.environ.get("SEGFOUNDRY_GOLDEN"):
        pytest.fail(f"SEGFOUNDRY_GOLDEN={os.environ['SEGFOUNDRY_GOLDEN']} is not a folder")
    if found is None:
        pytest.skip(values.MISSING)
    return found
