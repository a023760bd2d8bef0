"""`evo` with git history: h0 from the older snapshot, one step a commit, then the diffs of the working tree."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
import torch

from c2l_lsp.config import Settings, state_root
from c2l_lsp.engine import wire
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.storage.store import folder_key
from c2l_lsp.model.hypernet import checkpoint
from c2l_lsp.model.hypernet.encoder import pool_diff
from c2l_lsp.model.hypernet.gru import CommitGRU, GRUConfig
from c2l_lsp.model.hypernet.lora_head import Code2LoRAHead, HeadConfig
from c2l_lsp.model.hypernet.protocol import StateChange
from c2l_lsp.repo.history import git_history

GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")


def git(root: Path, *words: str) -> None:
    subprocess.run([*GIT, *words], cwd=root, check=True, capture_output=True, timeout=30)


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "x")


@pytest.fixture
def evo(accept_every_adapter: None, settings: Settings, tiny_folder: Path, tmp_path: Path) -> Settings:
    """Settings for a base model with random `evo` weights beside it."""
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    torch.manual_seed(1)
    head = HeadConfig(input_dim=128, hidden_dim=16, rank=4, type_dims={"q_proj": (64, 64), "v_proj": (64, 32)})
    gru = GRUConfig(diff_input_dim=128, repo_state_dim=128, hidden_dim=128)
    manifest = checkpoint.Manifest(kind="evo", head=head, gru=gru, alpha=8.0)
    checkpoint.save(checkpoint.Checkpoint.from_modules(manifest, Code2LoRAHead(head), CommitGRU(gru)), model / "evo")
    return msgspec.structs.replace(
        settings,
        model=msgspec.structs.replace(settings.model, path=str(model)),
        adapter=msgspec.structs.replace(settings.adapter, hypernetwork="evo", history_commits=3),
    )


@pytest.fixture
def repository(folder: Path, sources: list[str]) -> Path:
    """A repository with five commits."""
    git(folder, "init", "-q")
    for n in range(5):
        (folder / "pkg" / f"m{n}.py").write_text(sources[20 + n][:1500], encoding="utf-8")
        commit(folder)
    return folder


def workspace(session: Session, folder: Path):
    return session.engine.workspace(str(folder.resolve()))


def wait(session: Session, folder: Path, generation: int) -> wire.AdapterInfo:
    one, deadline = workspace(session, folder), time.monotonic() + 30
    while one.info().generation < generation or one.pending:
        assert time.monotonic() < deadline, one.info()
        if (due := one.due_in(time.monotonic())) is not None and due <= 0:
            session.engine.idle_step()
        else:
            time.sleep(0.01)
    return one.info()


def state_from_git(session: Session, folder: Path, commits: int) -> torch.Tensor:
    """The state h computed from the git history alone."""
    network = workspace(session, folder)._learner.network
    shas = [one.sha for one in git_history.first_parent_commits(folder, commits + 1)]
    blobs = git_history.blobs(folder, git_history.tree(folder, shas[0]).values())
    chunks = [chunk for _, text in blobs for chunk in network.chunks(text.decode())]
    (state,) = network.update([network.empty_state()], [StateChange(added=network.embed(chunks), first=True)])
    h = state.tensors["h"]
    for a, b in itertools.pairwise(shas):
        embedded = network.embed(network.diff_chunks(git_history.diff_text(folder, a, b)))[0]["chunks"]
        h = network.gru.step(pool_diff(embedded)[None], h[None])[0].detach()
    return h


def test_state_is_the_older_snapshot_and_one_step_per_commit(evo, repository):
    with Session(evo) as session:
        info = session.open(repository)
        assert (info.generation, info.files, info.state) == (1, 12, "ready")
        h = workspace(session, repository)._learner.state.tensors["h"]
        torch.testing.assert_close(h, state_from_git(session, repository, 3), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(h, state_from_git(session, repository, 2), atol=1e-3)
        assert workspace(session, repository).live.adapter is not None


def test_uncommitted_changes_are_one_more_step(evo, repository, sources):
    (repository / "pkg" / "m0.py").write_text(sources[30][:1500], encoding="utf-8")
    with Session(evo) as session:
        assert session.open(repository).generation == 2
        mine = workspace(session, repository)._learner
        h = state_from_git(session, repository, 3)
        text = subprocess.run(
            [*GIT, "diff", "--no-color", "-U3"], cwd=repository, check=True, capture_output=True, timeout=20
        ).stdout.decode()
        embedded = mine.network.embed(mine.network.diff_chunks(text))[0]["chunks"]
        wanted = mine.network.gru.step(pool_diff(embedded)[None], h[None])[0].detach()
        torch.testing.assert_close(mine.state.tensors["h"], wanted, rtol=1e-4, atol=1e-5)
        (repository / "tests_only.txt").write_text("no python\n")
        (repository / "pkg" / "m1.py").write_text(sources[31][:1500], encoding="utf-8")
        before = mine.state.tensors["h"]
        assert wait(session, repository, 3).files == 12
        assert not torch.equal(mine.state.tensors["h"], before)


def test_cached_commit_is_not_replayed(evo, repository, monkeypatch):
    with Session(evo) as first:
        first.open(repository)
        h = workspace(first, repository)._learner.state.tensors["h"]
    for old in (state_root() / folder_key(repository)).glob("gen-*"):
        shutil.rmtree(old)  # the state is lost, the cached embeddings are not
    (state_root() / folder_key(repository) / "CURRENT").unlink()
    asked = []
    real = git_history.diff_text
    monkeypatch.setattr(git_history, "diff_text", lambda *a, **k: asked.append(a) or real(*a, **k))
    with Session(evo) as second:
        second.open(repository)
        assert torch.equal(workspace(second, repository)._learner.state.tensors["h"], h)
        assert asked == []


def test_changed_ignore_rules_do_not_use_a_cached_commit(evo, repository):
    with Session(evo) as first:
        first.open(repository)
        h = workspace(first, repository)._learner.state.tensors["h"]
    (repository / ".c2lignore").write_text("m4.py\n")
    with Session(evo) as second:
        info = second.open(repository)
        assert info.files == 11
        assert not torch.allclose(workspace(second, repository)._learner.state.tensors["h"], h, atol=1e-4)


@pytest.mark.parametrize("how", ["setting", "none", "no git"])
def test_state_is_the_snapshot_without_history(evo, repository, how):
    adapter = {"setting": {"use_git_history": False}, "none": {"history_commits": 0}, "no git": {}}[how]
    if how == "no git":
        shutil.rmtree(repository / ".git")
    chosen = msgspec.structs.replace(evo, adapter=msgspec.structs.replace(evo.adapter, **adapter))
    with Session(chosen) as session:
        info = session.open(repository)
        assert (info.generation, info.files) == (1, 12)
        assert "files" in workspace(session, repository)._learner.state.tensors
        assert not [event for event in session.events if isinstance(event, wire.Trouble)]


def test_removed_secret_reaches_no_state(evo, repository, monkeypatch):
    secret = "AKIA" + "ABCDEFGH12345678"
    (repository / "pkg" / "keys.py").write_text(f"KEY = '{secret}'\n" * 30)
    commit(repository)
    (repository / "pkg" / "keys.py").unlink()
    commit(repository)
    from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder

    seen: list[str] = []
    for name in ("files", "diff_chunks"):
        real = getattr(EmbeddingEncoder, name)
        monkeypatch.setattr(
            EmbeddingEncoder,
            name,
            lambda self, texts, *rest, _real=real: seen.extend(texts) or _real(self, texts, *rest),
        )
    with Session(evo) as session:
        session.open(repository)
    assert seen
    assert not any(secret in text for text in seen)


def test_cost_of_a_step_does_not_depend_on_the_folder(evo, repository, sources):
    """An edit is embedded as its diff: the encoder embeds no file again."""
    with Session(evo) as session:
        session.open(repository)
        network, read = workspace(session, repository)._learner.network, []
        real = network.embed
        network.embed = lambda chunks: read.extend(chunks) or real(chunks)
        (repository / "pkg" / "m2.py").write_text(sources[32][:1500], encoding="utf-8")
        wait(session, repository, 2)
        assert [chunk.key[:1] for chunk in read] == [b"d"]
