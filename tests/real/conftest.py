"""Fixtures of the tests with real processes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short name: a unix socket's path has room for about a hundred bytes only."""
    folder = Path(tempfile.mkdtemp(prefix="fo-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
