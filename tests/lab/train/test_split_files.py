from __future__ import annotations

import random
from pathlib import Path

import pytest
from c2l_lab.train.split_files import join, split

from c2l_lsp.errors import CheckpointError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "step-0000001").mkdir(parents=True)
    (folder / "step-0000001" / "model.safetensors").write_bytes(random.Random(1).randbytes(50_000))
    (folder / "run.json").write_text("{}")
    return folder


def test_join_restores_the_folder(tmp_path: Path, run: Path) -> None:
    parts = split(run, tmp_path / "parts", 16_000)
    assert len(parts) == 4 and all(part.stat().st_size <= 16_000 for part in parts)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "old").write_text("left from before")
    join(tmp_path / "parts", tmp_path / "back")
    files = {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}
    back = tmp_path / "back"
    assert {str(p.relative_to(back)): p.read_bytes() for p in back.rglob("*") if p.is_file()} == files


@pytest.mark.parametrize("damage", ["cut", "flip", "lose"])
def test_damaged_part_raises_and_keeps_the_old_folder(tmp_path: Path, run: Path, damage: str) -> None:
    part = split(run, tmp_path / "parts", 16_000)[1]
    data = part.read_bytes()
    if damage == "lose":
        part.unlink()
    else:
        part.write_bytes(data[:-5] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "old").write_text("left from before")
    with pytest.raises(CheckpointError):
        join(tmp_path / "parts", tmp_path / "back")
    assert [p.name for p in (tmp_path / "back").iterdir()] == ["old"]
    assert not (tmp_path / "back.part").exists()
