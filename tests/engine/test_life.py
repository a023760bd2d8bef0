"""A folder's adapter through its life: first index, edits, restarts, rules, troubles. Real files, a real watcher."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from c2l_lsp.config import state_root
from c2l_lsp.engine import adapt, attention, keeping, wire
from c2l_lsp.engine.making import Live
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.store import folder_key
from c2l_lsp.errors import AdapterError


def changes(session: Session) -> list[wire.AdapterChanged]:
    return [event for event in session.events if isinstance(event, wire.AdapterChanged)]


def troubles(session: Session) -> list[wire.Trouble]:
    return [event for event in session.events if isinstance(event, wire.Trouble)]


def live(session: Session, folder: Path):
    return session.engine.life(str(folder.resolve())).live


def wait(session: Session, folder: Path, generation: int, timeout_s: float = 30.0) -> wire.AdapterInfo:
    """Drive the engine until a generation is live."""
    life = session.engine.life(str(folder.resolve()))
    deadline = time.monotonic() + timeout_s
    while life.info().generation < generation or life.pending:
        assert time.monotonic() < deadline, life.info()
        due = life.due_in(time.monotonic())
        if due is None or due > 0:
            time.sleep(0.01)
        else:
            session.engine.idle_step()
    return life.info()


def test_a_folder_is_indexed_into_generation_1(session, folder):
    info = session.open(folder)
    assert (info.generation, info.state, info.files) == (1, "ready", 12)
    assert info.chunks >= 12
    assert info.rank == session.engine.model.d
    (event,) = changes(session)
    assert event.trigger == "index"
    assert (len(event.paths), event.moved) == (8, 0.0)
    assert {"scan", "read", "update", "adapter", "gate"} <= event.ms.keys()


def test_an_edit_on_disk_becomes_the_next_generation(session, folder):
    session.open(folder)
    before = live(session, folder).adapter
    with (folder / "pkg" / "m3.py").open("a") as file:
        file.write("\n\ndef quite_new_name(value):\n    return value * 2\n")
    info = wait(session, folder, 2)
    assert info.generation == 2
    assert changes(session)[-1].trigger == "diff"
    assert changes(session)[-1].changed_files == 1
    assert changes(session)[-1].paths == ["pkg/m3.py"]
    assert 0.0 < changes(session)[-1].moved < 2.0
    assert live(session, folder).adapter.digest != before.digest


def test_a_deleted_and_a_renamed_file_follow(session, folder):
    session.open(folder)
    (folder / "pkg" / "m1.py").unlink()
    assert wait(session, folder, 2).files == 11
    assert changes(session)[-1].paths == ["pkg/m1.py"]
    (folder / "pkg" / "m2.py").rename(folder / "pkg" / "renamed.py")
    deadline = time.monotonic() + 20
    life = session.engine.life(str(folder.resolve()))
    while "pkg/renamed.py" not in life._learner.records:
        assert time.monotonic() < deadline
        if (due := life.due_in(time.monotonic())) is not None and due <= 0:
            session.engine.idle_step()
    assert life.info().files == 11
    assert life.info().generation == 2  # the same content under another name changes nothing in the sum


def test_after_edits_the_state_equals_that_of_the_final_files(settings, folder, sources):
    with Session(settings) as first:
        first.open(folder)
        for step in range(4):
            (folder / "pkg" / f"m{step}.py").write_text(sources[20 + step], encoding="utf-8")
            wait(first, folder, 2 + step)
        edited = first.engine.life(str(folder.resolve()))._learner.state
        network = first.engine.life(str(folder.resolve()))._learner.network
    shutil.rmtree(state_root())
    with Session(settings) as second:
        # the prior of a foreign base comes from the folder's first text, so it is handed over for this comparison
        second.engine.open_folder(wire.OpenFolder(folder=str(folder.resolve()), settings=settings))
        second.engine.life(str(folder.resolve()))._learner.network = network
        second.settle(str(folder.resolve()))
        fresh = second.engine.life(str(folder.resolve()))._learner.state
    difference = (edited.tensors["S"] - fresh.tensors["S"]).norm() / fresh.tensors["S"].norm()
    assert float(difference) < 1e-3
    assert float(edited.tensors["n"]) == float(fresh.tensors["n"])


def test_a_second_start_reads_nothing_and_is_bit_equal(settings, folder):
    with Session(settings) as first:
        first.open(folder)
        digest = live(first, folder).adapter.digest
    with Session(settings) as second:
        reads = []
        second.engine.open_folder(wire.OpenFolder(folder=str(folder.resolve()), settings=settings))
        network = second.engine.life(str(folder.resolve()))._learner.network
        network.read = lambda pieces: reads.append(pieces)  # type: ignore[method-assign]
        assert live(second, folder).adapter.digest == digest  # before any look at the files
        info = second.settle(str(folder.resolve()))
        assert info.generation == 1
        assert live(second, folder).adapter.digest == digest
        assert reads == []
        assert changes(second)[0].trigger == "restore"


def test_changes_made_while_it_was_off_are_folded_at_the_next_start(settings, folder):
    with Session(settings) as first:
        first.open(folder)
    (folder / "pkg" / "m5.py").write_text("def made_while_off():\n    return 1\n")
    (folder / "pkg" / "m6.py").unlink()
    with Session(settings) as second:
        info = second.open(folder)
        assert (info.generation, info.files) == (2, 11)


def test_a_damaged_state_is_set_aside_and_built_again(settings, folder):
    with Session(settings) as first:
        first.open(folder)
    for path in (state_root() / folder_key(folder)).glob("gen-*/state.safetensors"):
        path.write_bytes(path.read_bytes()[:-5])
    with Session(settings) as second:
        info = second.open(folder)
        assert info.state == "ready"
        assert live(second, folder).adapter is not None
        assert any(trouble.code == "state" for trouble in troubles(second))


def test_lost_readings_are_made_again(settings, folder):
    with Session(settings) as first:
        first.open(folder)
    (state_root() / folder_key(folder) / "readings.sqlite").unlink()
    (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
    with Session(settings) as second:
        assert second.open(folder).state == "ready"
        assert live(second, folder).adapter is not None


def test_an_unsaved_buffer_counts_and_is_taken_back(session, folder):
    session.open(folder)
    before = session.engine.life(str(folder.resolve()))._learner.state.tensors["S"].clone()
    life = session.engine.life(str(folder.resolve()))
    life.buffer("pkg/m4.py", "def only_in_the_editor(a):\n    return a\n")
    wait(session, folder, 2)
    life.buffer("pkg/m4.py", None)
    wait(session, folder, 3)
    assert float((life._learner.state.tensors["S"] - before).norm() / before.norm()) < 1e-9


def test_a_buffer_of_an_ignored_file_is_not_learned(session, folder):
    session.open(folder)
    life = session.engine.life(str(folder.resolve()))
    life.buffer(".env", "TOKEN = 'abc'\n")
    life.buffer("../outside.py", "x = 1\n")
    assert not life.pending


def test_tightened_rules_purge_what_was_learned(session, folder):
    session.open(folder)
    (folder / ".c2lignore").write_text("pkg/m1*.py\n")
    life = session.engine.life(str(folder.resolve()))
    deadline = time.monotonic() + 30
    while life.info().files != 9 or life.pending:
        assert time.monotonic() < deadline, life.info()
        due = life.due_in(time.monotonic())
        if due is not None and due <= 0:
            session.engine.idle_step()
    assert float(life._learner.state.tensors["recent"].abs().max()) == 0  # built anew, not subtracted from


def test_an_empty_folder_says_so_and_starts_when_a_file_comes(session, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    info = session.open(empty)
    assert "no readable python file" in info.message
    assert live(session, empty).adapter is None
    (empty / "a.py").write_text("def hello(name):\n    return 'hello ' + name\n" * 5)
    assert wait(session, empty, 1).files == 1


def test_a_folder_without_python_says_so(session, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.md").write_text("# hello\n")
    assert "no readable python file" in session.open(tmp_path / "docs").message
    assert troubles(session)[0].code == "nothing-to-learn"


def test_a_missing_folder_says_so(session, tmp_path):
    info = session.open(tmp_path / "nowhere")
    assert "not a folder" in info.message
    assert troubles(session)[0].code == "folder"


def test_a_folder_that_goes_away_is_told_and_learned_again_when_it_is_back(session, folder):
    session.open(folder)
    aside = folder.with_name("aside")
    folder.rename(aside)
    life = session.engine.life(str(folder.resolve()))
    life.regenerate()
    session.settle(str(folder.resolve()))
    assert life.info().state == "failed"
    assert life.live.adapter is None
    aside.rename(folder)
    life.regenerate()
    assert session.settle(str(folder.resolve())).state == "ready"
    generation = life.info().generation
    (folder / "pkg" / "m0.py").write_text("def watched_again():\n    return 2\n")
    assert wait(session, folder, generation + 1).state == "ready"


def test_a_fault_of_the_device_is_told_and_the_last_adapter_stays(session, folder, monkeypatch):
    session.open(folder)
    life = session.engine.life(str(folder.resolve()))
    adapter = life.live.adapter
    real = life._learner.network.read

    def failing(pieces):
        raise RuntimeError("CUDA error: out of memory\nand a long trace")

    monkeypatch.setattr(life._learner.network, "read", failing)
    (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
    deadline = time.monotonic() + 20
    while not any("out of memory" in trouble.message for trouble in troubles(session)):
        assert time.monotonic() < deadline
        if (due := life.due_in(time.monotonic())) is not None and due <= 0:
            session.engine.idle_step()
    assert life.live.adapter is adapter
    monkeypatch.setattr(life._learner.network, "read", real)
    life.regenerate()
    assert wait(session, folder, 2).state == "ready"


def test_while_git_is_at_work_nothing_is_read(session, folder):
    subprocess.run(["git", "init", "-q", str(folder)], check=True, timeout=20)
    session.open(folder)
    lock = folder / ".git" / "index.lock"
    lock.write_text("")
    (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
    life = session.engine.life(str(folder.resolve()))
    steps, until = 0, time.monotonic() + 1.5
    while time.monotonic() < until:
        due = life.due_in(time.monotonic())
        if due is not None and due <= 0:
            session.engine.idle_step()
            steps += 1
        else:
            time.sleep(0.005)
    assert life.info().generation == 1
    assert steps < 100  # it waits, it does not spin
    lock.unlink()
    assert wait(session, folder, 2).generation == 2


def at_work(session: Session, folder: Path, holds, timeout_s: float = 30.0) -> int:
    """Drive the engine until something holds; how many steps that took."""
    steps, deadline = 0, time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        due = session.engine.due_in()
        if due is not None and due <= 0:
            session.engine.idle_step()
            steps += 1
        else:
            time.sleep(0.005)
    return steps


def test_a_checkout_of_minutes_is_waited_for_as_long_as_files_change(session, folder):
    subprocess.run(["git", "init", "-q", str(folder)], check=True, timeout=20)
    session.open(folder)
    life = session.engine.life(str(folder.resolve()))
    lock, past = folder / ".git" / "index.lock", time.time() - 200
    lock.write_text("")
    for path in (lock, folder / ".git" / "HEAD"):
        os.utime(path, (past, past))
    (folder / "pkg" / "m0.py").write_text("def half_way():\n    return 2\n")
    at_work(session, folder, lambda: life.info().message)
    assert "git is at work" in life.info().message
    until = time.monotonic() + 1.0
    at_work(session, folder, lambda: time.monotonic() > until)
    assert life.info().generation == 1
    lock.unlink()
    assert wait(session, folder, 2).message == ""


def test_the_first_index_waits_for_git_too_and_says_so_and_not_for_ever(settings, folder, monkeypatch):
    subprocess.run(["git", "init", "-q", str(folder)], check=True, timeout=20)
    lock, name, told = folder / ".git" / "index.lock", str(folder.resolve()), []
    lock.write_text("")
    with Session(settings, told.append) as session:
        session.engine.open_folder(wire.OpenFolder(folder=name, settings=settings))
        life = session.engine.life(name)
        until = time.monotonic() + 1.5
        assert at_work(session, folder, lambda: time.monotonic() > until) < 100
        info = life.info()
        assert (info.generation, info.files, info.state) == (0, 0, "indexing")
        assert "git is at work" in info.message
        tasks = [event.task for event in told if isinstance(event, wire.Progress)]
        assert tasks == ["waiting for git"]
        monkeypatch.setattr(attention, "FIRST_WAIT_S", 0.1)
        info = wait(session, folder, 1)
        assert (info.files, info.message) == (12, "")
        assert changes(session)[0].trigger == "index"
        assert lock.exists()


def test_an_untrusted_folder_is_not_read_and_nothing_is_kept(session, folder):
    name = str(folder.resolve())
    session.engine.open_folder(wire.OpenFolder(folder=name, settings=session.settings, trusted=False))
    info = session.settle(name)
    assert (info.state, info.enabled, info.files) == ("off", False, 0)
    assert not (state_root() / folder_key(folder)).exists()


@pytest.mark.skipif(os.name == "nt" or (os.geteuid() == 0 and not shutil.which("true")), reason="needs a plain file")
def test_state_that_cannot_be_kept_is_told_once_and_learning_goes_on(settings, folder):
    state_root().parent.mkdir(parents=True, exist_ok=True)
    state_root().write_text("a file where the folder should be")
    with Session(settings) as session:
        info = session.open(folder)
        assert (info.generation, info.state) == (1, "ready")
        assert live(session, folder).adapter is not None
        assert [trouble.code for trouble in troubles(session)] == ["storage"]
        (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
        assert wait(session, folder, 2).state == "ready"


def test_switched_off_and_on_again(session, folder):
    session.open(folder)
    life = session.engine.life(str(folder.resolve()))
    adapter = life.live.adapter
    life.set_enabled(False)
    assert life.live.adapter is None
    life.set_enabled(True)
    assert life.live.adapter.digest == adapter.digest


def test_reset_forgets_and_learns_again(session, folder):
    session.open(folder)
    session.engine.life(str(folder.resolve())).reset()
    info = wait(session, folder, 2)
    assert info.files == 12
    assert changes(session)[-1].trigger == "reset"


def test_a_large_folder_is_sampled_by_a_pure_rule(session, folder, settings):
    small = msgspec.structs.replace(settings, adapter=msgspec.structs.replace(settings.adapter, max_index_kb=24))
    name = str(folder.resolve())
    session.engine.open_folder(wire.OpenFolder(folder=name, settings=small))
    info = session.settle(name)
    assert info.sampled
    assert 0 < info.learned_bytes <= 24 * 1024


def test_in_a_sampled_folder_what_is_worked_on_is_learned_all_the_same(folder, settings):
    small = msgspec.structs.replace(settings, adapter=msgspec.structs.replace(settings.adapter, max_index_kb=24))
    with Session(small) as session:
        info = session.open(folder)
        learned = session.engine.life(str(folder.resolve()))._learner.records
        outside = next(p for p in sorted((folder / "pkg").iterdir()) if f"pkg/{p.name}" not in learned)
        text = outside.read_text()
        outside.write_text("def worked_on(value):\n    return value + 1\n")
        assert wait(session, folder, info.generation + 1).files == info.files + 1
        digest = live(session, folder).adapter.digest
    with Session(small) as again:  # it stays learned after a restart, and what was never touched stays out
        assert again.open(folder).generation == info.generation + 1
        assert live(again, folder).adapter.digest == digest
        outside.write_text(text)
    with Session(small) as later:  # a change made while it was off is one too
        assert later.open(folder).generation == info.generation + 2


def test_of_a_file_outside_the_sample_only_what_changed_is_learned(folder, settings, sources):
    adapter = msgspec.structs.replace(settings.adapter, max_index_kb=64)
    large = "\n\n".join(sources[40:44])[:24000]
    for number in range(12, 16):
        (folder / "pkg" / f"m{number}.py").write_text(large.replace("self", f"self{number}"), encoding="utf-8")
    with Session(msgspec.structs.replace(settings, adapter=adapter)) as session:
        info = session.open(folder)
        assert info.sampled
        learner = session.engine.life(str(folder.resolve()))._learner
        outside = next(n for n in range(12, 16) if f"pkg/m{n}.py" not in learner.records)
        file, path = folder / "pkg" / f"m{outside}.py", f"pkg/m{outside}.py"
        text, before = file.read_text(), learner.state.tensors["S"].clone()
        whole = len(learner.network.pieces(text))
        assert whole > 6
        file.write_text(text + "\n\ndef worked_on(value):\n    return value + 1\n", encoding="utf-8")
        wait(session, folder, info.generation + 1)
        assert 0 < len(learner.records[path].keys) <= 2
        generation = info.generation + 1
    with Session(msgspec.structs.replace(settings, adapter=adapter)) as again:  # what it held at first is remembered
        assert again.open(folder).generation == generation
        learner = again.engine.life(str(folder.resolve()))._learner
        file.write_text(text, encoding="utf-8")  # the revert takes out what the edit brought
        wait(again, folder, generation + 1)
        assert learner.records[path].keys == ()
        assert float((learner.state.tensors["S"] - before).norm() / before.norm()) < 1e-9


def test_folders_are_updated_in_one_batch(session, folder, tmp_path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    session.open(folder)
    session.open(other)
    # a hypernetwork of its own for each folder of a foreign base: give both the same, as the shipped base has
    lives = [session.engine.life(str(path.resolve())) for path in (folder, other)]
    lives[1]._learner.network = lives[0]._learner.network
    sizes = []
    real = lives[0]._learner.network.update
    monkeypatch.setattr(lives[0]._learner.network, "update", lambda s, c: sizes.append(len(s)) or real(s, c))
    for path in (folder, other):
        (path / "pkg" / "m0.py").write_text("def changed():\n    return 3\n")
    for path in (folder, other):
        wait(session, path, 2)
    assert 2 in sizes


def test_a_hypernetwork_without_weights_says_what_to_set(session, folder, settings):
    evo = msgspec.structs.replace(settings, adapter=msgspec.structs.replace(settings.adapter, hypernetwork="evo"))
    name = str(folder.resolve())
    session.engine.open_folder(wire.OpenFolder(folder=name, settings=evo))
    info = session.settle(name)
    assert "no evo weights" in info.message
    assert live(session, folder).adapter is None


def test_an_adapter_that_does_not_help_is_kept_back(session, folder, monkeypatch):
    from c2l_lsp.engine.gate import Trial, Verdict

    def judge(*_):
        yield
        return Verdict(0.0, 0.2, 100, "it is worse", recall=0.0)

    monkeypatch.setattr(Trial, "judging", judge)
    info = session.open(folder)
    assert "kept back: it is worse" in info.message
    assert live(session, folder).adapter is None


def test_export_gives_the_live_logits_and_refuses_when_there_is_none(session, folder, tmp_path):
    name = str(folder.resolve())
    session.engine.open_folder(wire.OpenFolder(folder=name, settings=session.settings))
    with pytest.raises(AdapterError, match="no adapter"):
        session.engine.export(wire.Export(folder=name, out=str(tmp_path / "out")))
    session.settle(name)
    done = session.engine.export(wire.Export(folder=name, out=str(tmp_path / "out")))
    assert done.error < 1e-6
    assert (tmp_path / "out" / "adapter_config.json").is_file()


@pytest.mark.parametrize("kind", ["static", "evo"])
def test_the_papers_hypernetworks_follow_a_folder_too(open_gate, settings, folder, tiny_folder, tmp_path, kind):
    import torch

    from c2l_lsp.model import checkpoint
    from c2l_lsp.model.head import Code2LoRAHead, CommitGRU, GRUConfig, HeadConfig

    model = tmp_path / "model"  # weights trained for a model stand in its own folder
    shutil.copytree(tiny_folder, model)
    torch.manual_seed(1)
    head = HeadConfig(input_dim=128, hidden_dim=16, rank=4, type_dims={"q_proj": (64, 64), "v_proj": (64, 32)})
    gru = GRUConfig(diff_input_dim=128, repo_state_dim=128, hidden_dim=128) if kind == "evo" else None
    about = checkpoint.About(kind=kind, head=head, gru=gru, alpha=8.0)
    made = checkpoint.Checkpoint.of(about, Code2LoRAHead(head), CommitGRU(gru) if gru else None)
    checkpoint.save(made, model / kind)
    chosen = msgspec.structs.replace(
        settings,
        model=msgspec.structs.replace(settings.model, path=str(model)),
        adapter=msgspec.structs.replace(settings.adapter, hypernetwork=kind),
    )
    with Session(chosen) as session:
        assert session.open(folder).kind == kind
        before = live(session, folder)
        assert before.adapter.pairs
        with (folder / "pkg" / "m3.py").open("a") as file:
            file.write("\n\n" + "\n".join(f"def added_{n}(value):\n    return value * {n}\n" for n in range(8)))
        wait(session, folder, 2)
        after = live(session, folder)
        assert after.adapter.digest != before.adapter.digest
        assert after.kv_key != before.kv_key
        digest = after.adapter.digest
    with Session(chosen) as again:
        again.open(folder)
        assert live(again, folder).adapter.digest == digest  # evo after a restart goes on bit-equal


def test_what_could_not_be_kept_is_kept_once_it_can_be(settings, folder, monkeypatch):
    """A full disk once must not cost everything that is learned afterwards."""
    monkeypatch.setattr(keeping, "KEEP_AGAIN_S", 0.2)
    state_root().parent.mkdir(parents=True, exist_ok=True)
    state_root().write_text("a file where the folder should be")
    with Session(settings) as session:
        assert session.open(folder).generation == 1
        state_root().unlink()
        time.sleep(0.2)
        (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
        wait(session, folder, 2)
        session.until(lambda: [t.severity for t in troubles(session) if t.code == "storage"] == ["warning", "info"])
    with Session(settings) as second:
        second.engine.open_folder(wire.OpenFolder(folder=str(folder.resolve()), settings=settings))
        life = second.engine.life(str(folder.resolve()))
        assert life.info().generation == 2
        keys = [key for record in life._learner.records.values() for key in record.keys]
        life._learner.readings = None
        assert len(life._keeping.store.cache.get(keys, life._learner.network.digest)) == len(
            set(keys)
        )  # held in memory meanwhile


def test_the_second_server_on_a_folder_learns_and_writes_nothing(settings, folder):
    with Session(settings) as first, Session(settings) as second:
        first.open(folder)
        kept = sorted((p.name, p.stat().st_mtime_ns) for p in (state_root() / folder_key(folder)).glob("gen-*/*"))
        info = second.open(folder)
        assert (info.generation, info.state) == (1, "ready")
        assert live(second, folder).adapter.digest == live(first, folder).adapter.digest
        (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
        assert wait(second, folder, 2).state == "ready"
        assert [(t.code, t.severity) for t in troubles(second)] == [("storage", "info")]
        after = sorted((p.name, p.stat().st_mtime_ns) for p in (state_root() / folder_key(folder)).glob("gen-*/*"))
        assert after == kept


def test_a_device_that_fails_at_the_batched_update_does_not_end_the_engine(session, folder, monkeypatch):
    session.open(folder)
    life = session.engine.life(str(folder.resolve()))
    monkeypatch.setattr(adapt, "RETRY_S", 0.1)
    real, calls = life._learner.network.update, []

    def failing(states, changes):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of memory, the first time")
        return real(states, changes)

    monkeypatch.setattr(life._learner.network, "update", failing)
    (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
    assert wait(session, folder, 2).state == "ready"
    assert "the first time" in troubles(session)[0].message


def test_a_lost_device_is_not_worked_on(session, folder, monkeypatch):
    session.open(folder)
    life = session.engine.life(str(folder.resolve()))

    def lost(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(life._learner.network, "update", lost)
    (folder / "pkg" / "m0.py").write_text("def other():\n    return 2\n")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        wait(session, folder, 2)


def question(folder, **changes) -> wire.Complete:
    plain = {"folder": str(folder.resolve()), "path": "pkg/new.py", "language": "python", "suffix": ""}
    return wire.Complete(**{**plain, "prefix": "def f(a):\n    return ", "max_new_tokens": 4, **changes})


def test_an_adapter_that_makes_no_numbers_is_taken_out(open_gate, session, folder):
    session.open(folder)
    life = session.engine.life(str(folder.resolve()))
    bad = live(session, folder).adapter.scaled(1.0)
    bad.final_map.fill_(float("nan"))
    life.live = Live(7, bad)
    answer = session.complete(question(folder))
    assert (answer.generation, answer.new_tokens) == (life.info().generation, 4)
    assert "no numbers" in life.info().message
    assert [t.severity for t in troubles(session)] == ["error"]
    assert session.complete(question(folder, adapter=False)).texts == answer.texts


def test_a_model_that_computes_no_numbers_says_so(session, monkeypatch, tmp_path):
    from c2l_lsp.engine.decode import Decoder

    real = Decoder._scores
    monkeypatch.setattr(Decoder, "_scores", lambda self, logits, owed: real(self, logits * float("nan"), owed))
    with pytest.raises(FloatingPointError, match="no numbers"):
        session.complete(msgspec.structs.replace(question(tmp_path), folder=""))
    monkeypatch.setattr(Decoder, "_scores", real)
    session.engine._decoder.forget()
    assert session.complete(msgspec.structs.replace(question(tmp_path), folder="")).new_tokens == 4


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("path", [".env", "deploy/id_rsa", "hidden/a.py", "own.py", "node_modules/x.js", "../up.py"])
def test_a_file_that_is_left_out_is_in_no_prompt(session, folder, path, trusted):
    (folder / ".gitignore").write_text("hidden/\n")
    (folder / ".c2lignore").write_text("own.py\n")
    request = wire.OpenFolder(folder=str(folder.resolve()), settings=session.settings, trusted=trusted)
    session.engine.open_folder(request)
    answer = session.complete(question(folder, path=path))
    assert (answer.texts, answer.prompt_tokens) == ([], 0)
    assert "left out" in answer.reason
    assert session.complete(question(folder, path="pkg/m0.py")).new_tokens == 4


def test_a_state_of_the_first_version_is_gone_on_with(settings, folder):
    """Made by another hypernetwork: built anew, and the counter of generations goes on from there."""
    kept = Path(__file__).parent / "kept_state_1"
    shutil.copytree(kept, state_root() / folder_key(folder))
    with Session(settings) as session:
        info = session.open(folder)
        assert (info.generation, info.files, info.state) == (42, 12, "ready")
        assert troubles(session) == []
