"""One story for every implementation of a port: a test each, named by the row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

Story = TypeVar("Story")


def contract_of(rows: Mapping[str, Callable[[Path, Story], None]]) -> Callable[[Story], Callable[[str, Path], None]]:
    """A decorator that makes of a story a test for each row; a row plays it in a folder of its own."""

    def contract(story: Story) -> Callable[[str, Path], None]:
        @pytest.mark.parametrize("row", rows)
        def test(row: str, tmp_path: Path) -> None:
            rows[row](tmp_path, story)

        test.__doc__ = story.__doc__
        return test

    return contract
