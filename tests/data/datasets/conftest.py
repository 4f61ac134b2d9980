"""What the tests of `ddl_d2.data.datasets` share."""

from __future__ import annotations

import pytest

from ddl_d2.data.datasets import index_cache


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The folder of indexes, of this test alone."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DDL_D2_CACHE", str(folder))
    index_cache._said.clear()
    (folder / "indexes").mkdir()
    return folder / "indexes"
