"""Whatever stands in a state directory: it is set aside with a message, the folder is learned again and watched."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from c2l_lsp.config import Settings, state_root
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.storage.store import folder_key
from tests.support import foreign_state
from tests.support.damaged_folder import Damaged
from tests.support.engine_driver import wait
from tests.support.foreign_state import Case

pytestmark = pytest.mark.timeout(300)
FILES = 3
LONGEST_S = 60.0
"""Limit for one case on a busy machine; a query without end or the open of a FIFO would exceed every limit."""


@pytest.fixture(scope="module")
def made(
    tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, sources: list[str]
) -> Iterator[tuple[Session, Path, Path]]:
    """An engine, a folder, and a copy of its sound state."""
    from c2l_lsp.config import merge

    folder = tmp_path_factory.mktemp("project").resolve()
    for number, text in enumerate(sorted(sources, key=len)[10 : 10 + FILES]):
        (folder / f"m{number}.py").write_text(text, encoding="utf-8")
    values = {
        "model": {"path": str(tiny_folder), "dtype": "float32", "device": "cpu"},
        "adapter": {"updateDelayMs": 20, "maxDelayMs": 100},
    }
    settings, errors = merge(Settings(), values, source="test", machine=True)
    assert not errors
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("C2L_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        with Session(settings) as session:
            session.open(folder)
            root = state_root() / folder_key(folder)
            wait(session, folder, 1)
            session.engine.close_folder(str(folder))
            sound = root.parent.with_name("sound") / "state"
            shutil.copytree(root, sound)
            yield session, folder, sound


@pytest.fixture
def damaged(
    made: tuple[Session, Path, Path], accept_every_adapter: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Damaged]:
    session, folder, sound = made
    monkeypatch.setenv("C2L_STATE_DIR", str(sound.parent.with_name("states")))
    one = Damaged(session, folder, sound, limit_s=LONGEST_S, adapter=True)
    yield one
    one.reset()


def run(damaged: Damaged, cases: Iterable[Case], *, rebuild: bool = False) -> None:
    """Every case, then a change that the watcher must see."""
    found, count = list[str](), 0
    for case in cases:
        found += [f"{case.name}: {fault}" for fault in damaged.faults(case, rebuild=rebuild or "readings" in case.name)]
        count += 1
    assert count > 10
    assert not found, "\n".join(found)
    text = (damaged.folder / "m0.py").read_text()
    damaged.change_is_seen()
    (damaged.folder / "m0.py").write_text(text)


def test_every_json_type_in_every_field_of_the_manifest(damaged: Damaged) -> None:
    run(damaged, foreign_state.manifests())


def test_every_type_in_every_field_of_the_metadata(damaged: Damaged) -> None:
    run(damaged, foreign_state.metadata())


def test_odd_tensors_with_agreeing_checksums(damaged: Damaged) -> None:
    run(damaged, foreign_state.state_tensors(foreign_state.generation(damaged.sound)))


def test_hostile_databases(damaged: Damaged) -> None:
    run(damaged, foreign_state.databases(), rebuild=True)


def test_links_fifos_and_directories_in_the_place_of_files(damaged: Damaged) -> None:
    run(damaged, foreign_state.odd_files())
