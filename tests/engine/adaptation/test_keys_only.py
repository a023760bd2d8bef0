"""Beyond the sample a chunk has neural keys alone: nothing is computed twice, the sums are those of the sample."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from c2l_lsp.config import Settings, state_root
from c2l_lsp.cooperative import drain
from c2l_lsp.engine.adaptation import learner as learner_module
from c2l_lsp.engine.adaptation import sample, workspace_adapter
from c2l_lsp.engine.adaptation.chunk_embeddings import ChunkEmbeddings
from c2l_lsp.engine.adaptation.workspace_adapter import WorkspaceAdapter
from c2l_lsp.engine.indexing import token_indexer
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.storage.store import folder_key
from c2l_lsp.errors import StateError
from c2l_lsp.model.adapter.key_index import KeyIndex
from c2l_lsp.model.hypernet.protocol import Chunk, StateChange, key_with_gradients, without_gradients
from tests.support.engine_driver import troubles, wait
from tests.support.engine_loop import run_until

SMALL_SAMPLE = 30_000


@pytest.fixture(autouse=True)
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "GRADIENT_BYTES", SMALL_SAMPLE)


def workspace_of(session: Session, folder: Path) -> WorkspaceAdapter:
    workspace = session.engine.workspace(str(folder.resolve()))
    assert isinstance(workspace, WorkspaceAdapter)
    return workspace


def count_embedded(workspace: WorkspaceAdapter) -> Counter[bytes]:
    network, seen = workspace._learner.network, Counter[bytes]()
    assert network is not None
    embed = network.embed_in_slices

    def counted(chunks: list[Chunk]):
        seen.update(chunk.key for chunk in chunks)
        return (yield from embed(chunks))

    network.embed_in_slices = counted  # type: ignore[method-assign]
    return seen


def expected(workspace: WorkspaceAdapter, folder: Path) -> tuple[torch.Tensor, KeyIndex]:
    """S of the sample's files, and the positions of all files."""
    learner = workspace._learner
    network = learner.network
    assert network is not None
    whole = [c for path in sorted(learner.sample.gradients) for c in network.chunks((folder / path).read_text())]
    every = [c for path in sorted(folder.rglob("*.py")) for c in network.chunks(path.read_text())]
    state = network.update([network.empty_state()], [StateChange(added=network.embed(whole), first=True)])[0]
    index = network.update([network.empty_state()], [StateChange(added=network.embed(every), first=True)])[0].positions
    assert index is not None
    return state.tensors["S"], index


def same_positions(one: KeyIndex, other: KeyIndex) -> bool:
    close = np.abs(one.keys.astype(int) - other.keys).max() <= 2  # a batch can change the last bit of a state
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.places, other.places) and bool(close)


def test_sums_are_those_of_the_sample_and_every_file_has_keys(session: Session, folder: Path) -> None:
    session.open(folder)
    workspace = workspace_of(session, folder)
    learner = workspace._learner
    assert 0 < len(learner.sample.gradients) < len(learner.records) == 12
    assert not workspace.info().sampled
    S, positions = expected(workspace, folder)
    assert learner.state is not None and learner.state.positions is not None
    torch.testing.assert_close(learner.state.tensors["S"], S, rtol=1e-3, atol=1e-3 * float(S.abs().max()))
    assert same_positions(learner.state.positions, positions)
    assert workspace.info().keyed == len(positions)


def test_edit_outside_the_sample_is_a_recent_change_and_a_revert_takes_it_back(session: Session, folder: Path) -> None:
    session.open(folder)
    workspace = workspace_of(session, folder)
    learner = workspace._learner
    path = next(path for path in sorted(learner.records) if path not in learner.sample.gradients)
    before = learner.state
    assert before is not None
    text = (folder / path).read_text()
    (folder / path).write_text(text + "\n\ndef harvested(lantern):\n    return lantern.copper + 1\n")
    wait(session, folder, 2)
    assert learner.state is not None
    assert float(learner.state.tensors["recent"].abs().max()) > 0
    assert float(learner.state.tensors["n"]) > float(before.tensors["n"])
    seen = count_embedded(workspace)
    (folder / path).write_text(text)
    wait(session, folder, 3)
    assert not seen
    assert torch.allclose(
        learner.state.tensors["S"], before.tensors["S"], atol=1e-9 * float(before.tensors["S"].norm())
    )
    assert before.positions is not None and learner.state.positions is not None
    assert same_positions(learner.state.positions, before.positions)


def test_restart_reads_the_keys_and_embeds_nothing(settings: Settings, folder: Path, monkeypatch) -> None:
    for at_once in (10**6, 0):
        monkeypatch.setattr(workspace_adapter, "_CHUNKS_LOADED_AT_ONCE", at_once)
        with Session(settings) as first:
            first.open(folder)
            before = workspace_of(first, folder)._learner.state
            assert before is not None and before.positions is not None
        generation = next((state_root() / folder_key(folder)).glob("gen-*/state.safetensors"))
        assert generation.stat().st_size < sum(tensor.nbytes for tensor in before.tensors.values()) + 4096
        with Session(settings) as second:
            info = second.open(folder)
            state = workspace_of(second, folder)._learner.state
            assert state is not None and state.positions is not None
            assert same_positions(state.positions, before.positions)
            assert (info.generation, info.keyed) == (1, len(before.positions))
            assert all(torch.equal(state.tensors[name], before.tensors[name]) for name in before.tensors)
            assert workspace_of(second, folder)._learner._embeddings.seconds == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("whole", [False, True])
def test_lost_rows_are_computed_again(settings: Settings, folder: Path, whole: bool) -> None:
    with Session(settings) as first:
        first.open(folder)
        before = workspace_of(first, folder)._learner.state
    database = state_root() / folder_key(folder) / "readings.sqlite"
    with sqlite3.connect(database) as db:
        rows = [key for (key,) in db.execute("SELECT key FROM reading") if (key_with_gradients(key) is None) == whole]
        db.execute("DELETE FROM reading WHERE key = ?", rows[:1])
    db.close()
    with Session(settings) as second:
        info = second.open(folder)
        state = workspace_of(second, folder)._learner.state
        assert state is not None and before is not None
        assert state.positions is not None and before.positions is not None
        assert same_positions(state.positions, before.positions)
        assert torch.allclose(state.tensors["S"], before.tensors["S"], rtol=1e-3, atol=1e-2)
        assert (info.state, troubles(second)) == ("ready", [])


def test_keys_alone_are_taken_from_a_whole_embedding(session: Session, folder: Path) -> None:
    session.open(folder)
    network = workspace_of(session, folder)._learner.network
    assert network is not None
    chunk = network.chunks((folder / "pkg" / "m0.py").read_text())[0]
    store = ChunkEmbeddings(None, network, lambda error: None)
    drain(store.compute([chunk], lambda done, total: None))
    light = without_gradients(chunk)
    found = store.get([light.key])[light.key]
    assert sorted(found) == ["ids", "keys"]
    network.check_embedding(light.key, found)
    alone = network.embed([light])[0]
    assert torch.equal(alone["ids"], found["ids"])
    assert int((alone["keys"].int() - found["keys"].int()).abs().max()) <= 2
    with pytest.raises(StateError):  # sums would lack what must be subtracted later
        network.check_embedding(chunk.key, found)
    with pytest.raises(StateError):
        network.check_embedding(light.key, store.get([chunk.key])[chunk.key])


def test_reading_stops_after_the_time_of_a_start_and_goes_on_at_the_next(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "FIRST_PART", 20_000)
    monkeypatch.setattr(learner_module, "FILL_S", 0.0)
    counts = []
    for _ in range(2):
        with Session(settings) as session:
            info = session.open(folder)
            counts.append(len(workspace_of(session, folder)._learner.records))
            assert (info.state, info.complete, info.sampled) == ("ready", True, counts[-1] < 12)
            assert info.files == 12  # of the token index
            path = next(path for path in sorted(folder.rglob("*.py")) if str(path.relative_to(folder)) not in
                        workspace_of(session, folder)._learner.records)  # fmt: skip
            path.write_text(path.read_text() + f"\n\nedited_{len(counts)} = 1\n")
            wait(session, folder, info.generation + 1)
    assert counts[0] < counts[1]


def test_a_large_token_index_is_written_again_when_enough_has_changed(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_indexer, "_LARGE", 0)
    path = folder / "pkg" / "m3.py"
    text = path.read_text()

    def written(session: Session, generation: int) -> int:
        wait(session, folder, generation)
        root = state_root() / folder_key(folder)
        run_until(session, lambda: not workspace_of(session, folder)._persistence.busy)
        return next(root.glob(f"gen-{generation:08d}-*/extra.safetensors")).stat().st_ino

    with Session(settings) as first:
        first.open(folder)
        at_first = written(first, 1)
        path.write_text(text + "\n\nsmall_change = 1\n")
        monkeypatch.setattr(token_indexer, "_SHARE_UNSAVED", 0)
        assert written(first, 2) == at_first
        before = workspace_of(first, folder)._learner.tokens.index.digest
    with Session(settings) as second:
        assert second.open(folder).files == 12
        assert workspace_of(second, folder)._learner.tokens.index.digest == before, "the change is indexed again"
        monkeypatch.setattr(token_indexer, "_SHARE_UNSAVED", 10**9)
        path.write_text(text)
        assert written(second, workspace_of(second, folder).info().generation + 1) != at_first
