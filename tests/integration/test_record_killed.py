"""A recording that is killed outright, wherever it was, is continued to the very same store."""

from __future__ import annotations

import pytest

from tests.integration.killed import chunks, digest, finish, kill_one


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_continued(tmp_path, processes) -> None:
    whole, store = tmp_path / "whole.zarr", tmp_path / "killed.zarr"
    finish(whole, processes)
    assert kill_one(store, at=chunks(whole) // 3, processes=processes, rank=processes - 1)
    assert 0 < chunks(store) < chunks(whole)
    finish(store, processes)
    assert digest(store) == digest(whole)
