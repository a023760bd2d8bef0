"""File operations of a state directory."""

from __future__ import annotations

import pytest

from c2l_lsp.engine.storage import disk
from c2l_lsp.errors import StorageError


def test_delete_goes_on_after_a_file_that_cannot_be_deleted(tmp_path, undeletable):
    for name in ("a", "b", "c"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / name).write_text("x")
    (tmp_path / "outside").write_text("stays")
    (tmp_path / "d" / "a" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "d" / "linked").symlink_to(tmp_path)
    undeletable.append("b")
    with pytest.raises(StorageError, match="b cannot be deleted"):
        disk.delete(tmp_path / "d", tmp_path / "not there")
    assert [path.name for path in (tmp_path / "d").rglob("*")] == ["b", "b"]
    assert (tmp_path / "outside").exists()
