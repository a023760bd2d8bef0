"""A workspace's adapter: first index, edits, buffers, rules, samples. Real files, a real watcher."""

from __future__ import annotations

import shutil
import time

import msgspec
import pytest

from c2l_lsp.config import state_root
from c2l_lsp.engine import wire
from c2l_lsp.engine.session import Session
from c2l_lsp.engine.storage.store import folder_key
from c2l_lsp.errors import AdapterError
from tests.support.engine_driver import changes, live, question, wait


def test_folder_is_indexed_into_generation_1(session, folder):
    info = session.open(folder)
    assert (info.generation, info.state, info.files) == (1, "ready", 12)
    assert info.chunks >= 12
    assert info.rank == session.engine.model.d
    (event,) = changes(session)
    assert event.trigger == "index"
    assert (len(event.paths), event.moved) == (8, 0.0)
    assert {"scan", "read", "update", "adapter", "gate"} <= event.ms.keys()


def test_edit_on_disk_becomes_the_next_generation(session, folder):
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


def test_deleted_and_renamed_files_are_followed(session, folder):
    session.open(folder)
    (folder / "pkg" / "m1.py").unlink()
    assert wait(session, folder, 2).files == 11
    assert changes(session)[-1].paths == ["pkg/m1.py"]
    (folder / "pkg" / "m2.py").rename(folder / "pkg" / "renamed.py")
    deadline = time.monotonic() + 20
    workspace = session.engine.workspace(str(folder.resolve()))
    while "pkg/renamed.py" not in workspace._learner.records:
        assert time.monotonic() < deadline
        if (due := workspace.due_in(time.monotonic())) is not None and due <= 0:
            session.engine.idle_step()
    assert workspace.info().files == 11
    assert workspace.info().generation == 2  # the same content under another path does not change the state


def test_state_after_edits_equals_the_state_of_the_final_files(settings, folder, sources):
    with Session(settings) as first:
        first.open(folder)
        for step in range(4):
            (folder / "pkg" / f"m{step}.py").write_text(sources[20 + step], encoding="utf-8")
            wait(first, folder, 2 + step)
        edited = first.engine.workspace(str(folder.resolve()))._learner.state
        network = first.engine.workspace(str(folder.resolve()))._learner.network
    shutil.rmtree(state_root())
    with Session(settings) as second:
        # without a shipped prior it is estimated from the first text, so both sessions share it here
        second.engine.open_folder(wire.OpenFolder(folder=str(folder.resolve()), settings=settings))
        second.engine.workspace(str(folder.resolve()))._learner.network = network
        second.run_until_idle(str(folder.resolve()))
        fresh = second.engine.workspace(str(folder.resolve()))._learner.state
    difference = (edited.tensors["S"] - fresh.tensors["S"]).norm() / fresh.tensors["S"].norm()
    assert float(difference) < 1e-3
    assert float(edited.tensors["n"]) == float(fresh.tensors["n"])


def test_unsaved_buffer_counts_until_it_is_closed(session, folder):
    session.open(folder)
    before = session.engine.workspace(str(folder.resolve()))._learner.state.tensors["S"].clone()
    workspace = session.engine.workspace(str(folder.resolve()))
    workspace.set_buffer("pkg/m4.py", "def only_in_the_editor(a):\n    return a\n")
    wait(session, folder, 2)
    workspace.set_buffer("pkg/m4.py", None)
    wait(session, folder, 3)
    assert float((workspace._learner.state.tensors["S"] - before).norm() / before.norm()) < 1e-9


def test_buffer_of_an_ignored_file_is_not_learned(session, folder):
    session.open(folder)
    workspace = session.engine.workspace(str(folder.resolve()))
    workspace.set_buffer(".env", "TOKEN = 'abc'\n")
    workspace.set_buffer("../outside.py", "x = 1\n")
    assert not workspace.pending


def test_stricter_rules_discard_the_state(session, folder):
    session.open(folder)
    (folder / ".c2lignore").write_text("pkg/m1*.py\n")
    workspace = session.engine.workspace(str(folder.resolve()))
    deadline = time.monotonic() + 30
    while workspace.info().files != 9 or workspace.pending:
        assert time.monotonic() < deadline, workspace.info()
        due = workspace.due_in(time.monotonic())
        if due is not None and due <= 0:
            session.engine.idle_step()
    assert float(workspace._learner.state.tensors["recent"].abs().max()) == 0  # built from nothing, not by subtraction


def test_untrusted_folder_is_not_read_and_nothing_is_saved(session, folder):
    name = str(folder.resolve())
    session.engine.open_folder(wire.OpenFolder(folder=name, settings=session.settings, trusted=False))
    info = session.run_until_idle(name)
    assert (info.state, info.enabled, info.files) == ("off", False, 0)
    assert not (state_root() / folder_key(folder)).exists()


def test_adapter_can_be_switched_off_and_on(session, folder):
    session.open(folder)
    workspace = session.engine.workspace(str(folder.resolve()))
    adapter = workspace.live.adapter
    workspace.set_enabled(False)
    assert workspace.live.adapter is None
    workspace.set_enabled(True)
    assert workspace.live.adapter.digest == adapter.digest


def test_sample_of_a_large_folder_is_a_pure_function_of_its_files(session, folder, settings):
    small = msgspec.structs.replace(settings, adapter=msgspec.structs.replace(settings.adapter, max_index_kb=24))
    name = str(folder.resolve())
    session.engine.open_folder(wire.OpenFolder(folder=name, settings=small))
    info = session.run_until_idle(name)
    assert info.sampled
    assert 0 < info.learned_bytes <= 24 * 1024


def test_edited_files_outside_the_sample_are_learned(folder, settings):
    small = msgspec.structs.replace(settings, adapter=msgspec.structs.replace(settings.adapter, max_index_kb=24))
    with Session(small) as session:
        info = session.open(folder)
        learned = session.engine.workspace(str(folder.resolve()))._learner.records
        outside = next(p for p in sorted((folder / "pkg").iterdir()) if f"pkg/{p.name}" not in learned)
        text = outside.read_text()
        outside.write_text("def worked_on(value):\n    return value + 1\n")
        before = len(learned)
        wait(session, folder, info.generation + 1)
        assert len(session.engine.workspace(str(folder.resolve()))._learner.records) == before + 1
        digest = live(session, folder).adapter.digest
    with Session(small) as again:  # also after a restart; files never edited stay out
        assert again.open(folder).generation == info.generation + 1
        assert live(again, folder).adapter.digest == digest
        outside.write_text(text)
    with Session(small) as later:  # an edit made while the engine was off counts too
        assert later.open(folder).generation == info.generation + 2


def test_only_changed_chunks_of_a_file_outside_the_sample_are_learned(folder, settings, sources):
    adapter = msgspec.structs.replace(settings.adapter, max_index_kb=64)
    large = "\n\n".join(sources[40:44])[:24000]
    for number in range(12, 16):
        (folder / "pkg" / f"m{number}.py").write_text(large.replace("self", f"self{number}"), encoding="utf-8")
    with Session(msgspec.structs.replace(settings, adapter=adapter)) as session:
        info = session.open(folder)
        assert info.sampled
        learner = session.engine.workspace(str(folder.resolve()))._learner
        outside = next(n for n in range(12, 16) if f"pkg/m{n}.py" not in learner.records)
        file, path = folder / "pkg" / f"m{outside}.py", f"pkg/m{outside}.py"
        text, before = file.read_text(), learner.state.tensors["S"].clone()
        whole = len(learner.network.chunks(text))
        assert whole > 6
        file.write_text(text + "\n\ndef worked_on(value):\n    return value + 1\n", encoding="utf-8")
        wait(session, folder, info.generation + 1)
        assert 0 < len(learner.records[path].keys) <= 2
        generation = info.generation + 1
    with Session(msgspec.structs.replace(settings, adapter=adapter)) as again:  # its first chunks are remembered
        assert again.open(folder).generation == generation
        learner = again.engine.workspace(str(folder.resolve()))._learner
        file.write_text(text, encoding="utf-8")  # the revert removes what the edit added
        wait(again, folder, generation + 1)
        assert learner.records[path].keys == ()
        assert float((learner.state.tensors["S"] - before).norm() / before.norm()) < 1e-9


def test_workspaces_are_updated_in_one_batch(session, folder, tmp_path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    session.open(folder)
    session.open(other)
    # without a shipped prior each folder has its own hypernetwork: share one, as with a shipped model
    workspaces = [session.engine.workspace(str(path.resolve())) for path in (folder, other)]
    workspaces[1]._learner.network = workspaces[0]._learner.network
    sizes = []
    real = workspaces[0]._learner.network.update_in_slices
    monkeypatch.setattr(
        workspaces[0]._learner.network, "update_in_slices", lambda s, c: sizes.append(len(s)) or real(s, c)
    )
    for path in (folder, other):
        (path / "pkg" / "m0.py").write_text("def changed():\n    return 3\n")
    for path in (folder, other):
        wait(session, path, 2)
    assert 2 in sizes


def test_adapter_that_does_not_help_is_rejected(session, folder, monkeypatch):
    from c2l_lsp.engine.adaptation.validation import ValidationResult, Validator

    def reject(*_):
        yield
        return ValidationResult(0.0, 0.2, 100, "it is worse", knn_strength=0.0)

    monkeypatch.setattr(Validator, "validate_in_slices", reject)
    info = session.open(folder)
    assert "not used: it is worse" in info.message
    assert live(session, folder).adapter is None


def test_export_reproduces_the_live_logits_and_fails_without_an_adapter(session, folder, tmp_path):
    name = str(folder.resolve())
    session.engine.open_folder(wire.OpenFolder(folder=name, settings=session.settings))
    with pytest.raises(AdapterError, match="no adapter"):
        session.engine.export(wire.Export(folder=name, out=str(tmp_path / "out")))
    session.run_until_idle(name)
    done = session.engine.export(wire.Export(folder=name, out=str(tmp_path / "out")))
    assert done.error < 1e-6
    assert (tmp_path / "out" / "adapter_config.json").is_file()


@pytest.mark.parametrize("kind", ["static", "evo"])
def test_hypernetworks_of_the_paper_follow_a_folder(
    accept_every_adapter, settings, folder, tiny_folder, tmp_path, kind
):
    import torch

    from c2l_lsp.model.hypernet import checkpoint
    from c2l_lsp.model.hypernet.gru import CommitGRU, GRUConfig
    from c2l_lsp.model.hypernet.lora_head import Code2LoRAHead, HeadConfig

    model = tmp_path / "model"  # weights trained for a model are in the model's folder
    shutil.copytree(tiny_folder, model)
    torch.manual_seed(1)
    head = HeadConfig(input_dim=128, hidden_dim=16, rank=4, type_dims={"q_proj": (64, 64), "v_proj": (64, 32)})
    gru = GRUConfig(diff_input_dim=128, repo_state_dim=128, hidden_dim=128) if kind == "evo" else None
    manifest = checkpoint.Manifest(kind=kind, head=head, gru=gru, alpha=8.0)
    made = checkpoint.Checkpoint.from_modules(manifest, Code2LoRAHead(head), CommitGRU(gru) if gru else None)
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
        assert live(again, folder).adapter.digest == digest  # evo is bit-identical after a restart


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("path", [".env", "deploy/id_rsa", "hidden/a.py", "own.py", "node_modules/x.js", "../up.py"])
def test_excluded_file_is_in_no_prompt(session, folder, path, trusted):
    (folder / ".gitignore").write_text("hidden/\n")
    (folder / ".c2lignore").write_text("own.py\n")
    request = wire.OpenFolder(folder=str(folder.resolve()), settings=session.settings, trusted=trusted)
    session.engine.open_folder(request)
    answer = session.complete(question(folder, path=path))
    assert (answer.texts, answer.prompt_tokens) == ([], 0)
    assert "excluded" in answer.reason
    assert session.complete(question(folder, path="pkg/m0.py")).new_tokens == 4
