"""The token index of a folder: live before anything is embedded, exact, kept over a restart, never in the way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from c2l_lsp.config import Settings, merge
from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation.workspace_adapter import WorkspaceAdapter
from c2l_lsp.engine.session import Session
from c2l_lsp.model.adapter.mixture import MixtureGate
from c2l_lsp.model.lm.base import BaseModel
from tests.support import gates

pytestmark = pytest.mark.parts

WORDS = "velvet_anchor = copper_meadow.quarrel(harvest_lantern)\n"


def changed(settings: Settings, **adapter: object) -> Settings:
    made, errors = merge(settings, {"adapter": adapter}, source="test", machine=True)
    assert not errors
    return made


def opened(session: Session, folder: Path) -> WorkspaceAdapter:
    name = str(folder.resolve())
    session.engine.open_folder(wire.OpenFolder(folder=name, settings=session.settings))
    workspace = session.engine.workspace(name)
    assert isinstance(workspace, WorkspaceAdapter)
    return workspace


def run_until(session: Session, holds: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, [event for event in session.events if isinstance(event, wire.Trouble)]
        session.engine.idle_step()


def changes(session: Session) -> list[wire.AdapterChanged]:
    return [event for event in session.events if isinstance(event, wire.AdapterChanged)]


def contains(workspace: WorkspaceAdapter, model: BaseModel, text: str) -> bool:
    """Whether the live token index contains a text."""
    adapter, wanted = workspace.live.adapter, model.encode(text)
    ids = [] if adapter is None or adapter.knn is None else adapter.knn.tokens.ids.tolist()
    return any(ids[at : at + len(wanted)] == wanted for at in range(len(ids)))


def embedded(session: Session, workspace: WorkspaceAdapter, seen: Counter[bytes]) -> None:
    """Count every chunk that is embedded from now on."""
    network = workspace._learner.network
    assert network is not None
    plain = network.embed_in_slices

    def counting(chunks):
        seen.update(chunk.key for chunk in chunks)
        return plain(chunks)

    network.embed_in_slices = counting  # type: ignore[method-assign]


def test_first_generation_is_the_whole_folder_without_a_forward_pass(settings, folder):
    with Session(changed(settings, maxIndexKb=20)) as session:
        workspace = opened(session, folder)
        run_until(session, lambda: workspace.live.generation)
        first = changes(session)[0]
        assert (first.trigger, first.info.files, first.info.keyed) == (wire.TOKENS, 12, 0)
        assert workspace._learner.state is None
        assert workspace._learner.network is None  # not even the prior is estimated
        last = (folder / "pkg" / "m3.py").read_text(encoding="utf-8")[2000:2040]
        assert contains(workspace, session.engine.model, last)
        run_until(session, lambda: workspace.info().complete and not workspace.pending)
        info = workspace.info()
        assert 0 < info.keyed < info.recalled and info.sampled  # the sample has keys, the rest has none


def test_keys_come_in_parts_and_no_chunk_is_embedded_twice(settings, folder, monkeypatch):
    monkeypatch.setattr("c2l_lsp.engine.adaptation.sample.FIRST_PART", 8000)
    with Session(settings) as session:
        workspace = opened(session, folder)
        run_until(session, lambda: workspace._learner.network is not None)
        seen: Counter[bytes] = Counter()
        embedded(session, workspace, seen)
        run_until(session, lambda: workspace.info().complete and not workspace.pending)
        keyed = [change.info.keyed for change in changes(session) if change.trigger == "index"]
        assert len(keyed) >= 3 and keyed == sorted(set(keyed))
        assert workspace.info().files == 12
        assert set(seen.values()) == {1}
        assert float(workspace._learner.state.tensors["recent"].abs().sum()) == 0  # a part is no recent change


def test_an_edit_goes_live_while_the_rest_is_embedded(settings, folder, monkeypatch):
    monkeypatch.setattr("c2l_lsp.engine.adaptation.sample.FIRST_PART", 8000)
    with Session(settings) as session:
        workspace = opened(session, folder)
        run_until(session, lambda: changes(session) and changes(session)[-1].trigger == "index")
        assert not workspace.info().complete
        (folder / "pkg" / "new.py").write_text(WORDS * 3, encoding="utf-8")
        run_until(session, lambda: contains(workspace, session.engine.model, WORDS.strip()))
        assert not workspace.info().complete
        run_until(session, lambda: workspace.info().complete and not workspace.pending)
        assert workspace.info().files == 13


def test_an_edit_does_not_wait_for_the_first_neural_keys(settings, folder):
    with Session(settings) as session:
        workspace = opened(session, folder)
        run_until(session, lambda: workspace.live.generation)
        (folder / "pkg" / "new.py").write_text(WORDS * 3, encoding="utf-8")
        run_until(session, lambda: contains(workspace, session.engine.model, WORDS.strip()))
        assert workspace.info().keyed == 0


def test_what_leaves_the_folder_leaves_the_index(settings, folder):
    extra = folder / "pkg" / "extra.py"
    extra.write_text(WORDS * 3, encoding="utf-8")
    (folder / "pkg" / "copy.py").write_text(WORDS * 3, encoding="utf-8")
    with Session(settings) as session:
        workspace = opened(session, folder)
        run_until(session, lambda: workspace.info().complete and not workspace.pending)
        model = session.engine.model
        assert contains(workspace, model, WORDS.strip())
        extra.unlink()
        run_until(session, lambda: workspace.info().files == 13)
        assert contains(workspace, model, WORDS.strip())  # the copy holds the same chunk
        (folder / ".gitignore").write_text("copy.py\n", encoding="utf-8")
        run_until(session, lambda: workspace.info().files == 12)
        assert not contains(workspace, model, WORDS.strip())


def test_restart_takes_up_the_index_without_tokenizing(settings, folder):
    with Session(changed(settings, maxIndexKb=20)) as session:
        workspace = opened(session, folder)
        run_until(session, lambda: workspace.info().complete and not workspace.pending)
        digest, positions = workspace.live.adapter.knn.digest, len(workspace.live.adapter.knn)
    with Session(changed(settings, maxIndexKb=20)) as again:
        tokenized: list[str] = []
        model = again.engine.model
        model.__dict__["encode_batch"] = lambda texts: tokenized.extend(texts) or [model.encode(one) for one in texts]
        workspace = opened(again, folder)
        assert workspace.live.adapter.knn.digest == digest  # before any file is compared
        assert len(workspace.live.adapter.knn) == positions
        again.run_until_idle(str(folder.resolve()))
        assert tokenized == []
        (folder / "pkg" / "new.py").write_text(WORDS * 3, encoding="utf-8")
        run_until(again, lambda: contains(workspace, model, WORDS.strip()))
        assert tokenized == [WORDS * 3]


@pytest.mark.parametrize("name", ["tokens.ids", "tokens.order", "tokens.names", "tokens.starts"])
def test_damaged_index_is_set_aside_and_built_again(settings, folder, monkeypatch, name):
    from c2l_lsp.engine.indexing.token_indexer import TokenIndexer

    with monkeypatch.context() as patch:
        plain = TokenIndexer.to_tensors
        patch.setattr(
            TokenIndexer, "to_tensors", lambda self: plain(self) | {name: torch.full_like(plain(self)[name], 7)}
        )
        with Session(settings) as session:
            workspace = opened(session, folder)
            run_until(session, lambda: workspace.info().complete and not workspace.pending)
    with Session(settings) as again:
        workspace = opened(again, folder)
        assert workspace.live.adapter is None
        assert any("set aside" in event.message for event in again.events if isinstance(event, wire.Trouble))
        run_until(again, lambda: workspace.info().complete and not workspace.pending)
        assert workspace.info().files == 12


def test_unsaved_buffers_are_indexed_as_the_filter_has_checked_them(settings, folder):
    with Session(settings) as session:
        workspace = opened(session, folder)
        run_until(session, lambda: workspace.info().complete and not workspace.pending)
        workspace.set_buffer("pkg/m0.py", WORDS * 3)
        run_until(session, lambda: contains(workspace, session.engine.model, WORDS.strip()))
        workspace.set_buffer("pkg/m0.py", None)
        run_until(session, lambda: not contains(workspace, session.engine.model, WORDS.strip()))


HOSTILE: dict[str, Callable[[Path], None]] = {
    "one line of a megabyte": lambda root: _write(root / "a.py", "x = [" + "1, " * 330_000 + "]\n"),
    "10,000 copies of one file": lambda root: [
        _write(root / f"p{n % 40}" / f"m{n}.py", WORDS * 4) for n in range(10_000)
    ],
    "names of other scripts": lambda root: _write(root / "b.py", "größe = 'δοκιμή'; 変数 = '测试' * 3\n" * 4000),
    "generated code": lambda root: _write(root / "c.py", "".join(f"FIELD_{n} = {n * n}\n" for n in range(15_000))),
    "empty and blank files": lambda root: [_write(root / f"e{n}.py", "\n" * n) for n in range(50)],
}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_folder_makes_the_index_slow(settings, tmp_path, kind, monkeypatch):
    root = tmp_path / "hostile"
    _write(root / "plain.py", WORDS)
    HOSTILE[kind](root)
    monkeypatch.setattr("c2l_lsp.engine.adaptation.learner.Learner.embed", lambda *_: iter(()))  # the index alone
    with Session(changed(settings, maxIndexKb=64)) as session:
        workspace = opened(session, root)
        began, longest = time.monotonic(), 0.0
        while not contains(workspace, session.engine.model, WORDS.strip()):
            started = time.thread_time()
            session.engine.idle_step()
            longest = max(longest, time.thread_time() - started)
            assert time.monotonic() - began < 60
        assert longest < 0.1  # 10,000 copies 0.046 s, all others below 0.01 s measured
        refused = kind == "one line of a megabyte"  # by the filter; `test_no_text_sorts_slowly` has such a text
        assert (len(workspace.live.adapter.knn) > 40) == (not refused and kind != "empty and blank files")


@pytest.mark.parametrize("order", ["psm", "spm", "joined"])
def test_memory_continues_the_text_before_the_cursor_whatever_comes_after_it(tiny, order, monkeypatch):
    """With a suffix, a prompt of order psm ends with a FIM token; no position of the index is followed by one."""
    from dataclasses import replace

    from c2l_lsp.engine.completion.decode import Decoder
    from c2l_lsp.engine.completion.prompt import build
    from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
    from c2l_lsp.model.adapter.token_index import TokenIndex

    model = replace(tiny, fim=replace(tiny.fim, order=order))
    ids = model.encode(WORDS)
    index = TokenIndex().updated({b"n" * 16: [model.start_id, *ids]})
    slot = AdapterSlot(model)
    gate: MixtureGate = gates.ALWAYS
    slot.activate(Adapter(model.digest, "memory").with_tokens(index, model.d, gate))
    cut = len(ids) // 2
    prompt = build(model, model.decode(ids[:cut]), "\n\nprint(velvet_anchor)\n", 512, reserve=16, heal=False)
    assert prompt.fim
    decoder = Decoder(model, slot)
    stream = decoder.stream(decoder.prefill(prompt.ids))
    assert [next(stream).token for _ in range(5)] == ids[cut : cut + 5]
