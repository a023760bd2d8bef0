"""Hostile models, checkpoints, states, settings, URIs and git repositories: nothing in them may be executed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec

from c2l_lsp.config import Model, Settings, load_user, merge
from c2l_lsp.errors import C2LError, CheckpointError, ModelError, StateError
from c2l_lsp.server.workspace.folders import Folders, to_path
from tests.soak.harness import in_process
from tests.soak.harness.bar import Finding, Task
from tests.soak.harness.sources import PACKAGE, project
from tests.soak.planted.hostile import executing
from tests.support.processes import start_server

URIS = (
    "http://x/a.py", "untitled:Untitled-1", "git:/w/a.py", "vscode-remote://ssh/w/a.py", "file://other.host/w/a.py",
    "file:///w/a%00.py", "file:", "", "file:w/a.py", "javascript:alert(1)", "file://[::1/a", "\x00", "data:,x",
)  # fmt: skip
"""URIs that are no local file."""

OUTSIDE = (
    "file:///w/../etc/passwd", "file:///w/%2e%2e/etc/passwd", "file:///w%2f..%2f..%2fetc/passwd", "file:///wide/a.py",
)  # fmt: skip
"""Files outside the folder /w."""

WORKSPACE: dict[str, dict[str, object]] = {
    "model": {"path": "/evil", "id": "evil/model", "revision": "x"},
    "server": {"path": "/bin/sh", "args": ["-c", "id"], "interpreter": "/evil/python"},
    "remote": {"url": "https://evil", "tokenFile": "/etc/passwd"},
    "trace": {"server": "verbose"},
}
"""Settings that a workspace must not change."""


def run(task: Task) -> Finding:
    """All attacks, once per round."""
    finding = Finding()
    for number in range(task.count):
        work = task.work / f"round-{number}"
        work.mkdir()
        marker = work / "executed"
        for attack in (_settings, _uris, _checkpoint, _state, _model, _adapter, _modules, _git):
            with executing(task.plant):
                attack(task, finding, work, marker)
            finding.expect(not marker.exists(), f"{attack.__name__.strip('_')}: something was executed")
            marker.unlink(missing_ok=True)
            if task.plant and finding.failed:
                return replace(finding, tried=1)
        finding.tried += 1
    return finding


def _script(path: Path, marker: Path) -> Path:
    path.write_text(f"#!/bin/sh\necho \"$0\" >> '{marker}'\ncat\n")
    path.chmod(0o755)
    return path


def _settings(task: Task, finding: Finding, work: Path, marker: Path) -> None:
    del work, marker
    made, errors = merge(Settings(), WORKSPACE, source="the workspace", machine=task.planted("trusting"))
    finding.expect(made == Settings(), "workspace settings changed a machine setting")
    for group, values in WORKSPACE.items():
        for key in values:
            finding.expect(any(f"c2l.{group}.{key}" in str(error) for error in errors), f"{group}.{key} is not named")


def _uris(task: Task, finding: Finding, work: Path, marker: Path) -> None:
    del task, work, marker
    folders = Folders()
    folders.add("file:///w")
    for uri in URIS:
        finding.expect(to_path(uri) is None, f"URI {uri!r} became a path")
    for uri in OUTSIDE:
        finding.expect(folders.resolve(uri).folder == "", f"URI {uri!r} is inside")


def _checkpoint(task: Task, finding: Finding, work: Path, marker: Path) -> None:
    """A pickle that executes a command, under every file name that is read."""
    del task
    from c2l_lsp.model.hypernet import checkpoint

    pickled = _pickled(marker)
    for name in ("model.pt", "pytorch_model.bin", "model.safetensors", "checkpoint.pt"):
        (work / name).write_bytes(pickled)
    refused: tuple[type[Exception], ...] = (CheckpointError, C2LError)
    with contextlib.suppress(*refused):
        checkpoint.load(work)
        finding.fail("a folder of pickles was loaded as a checkpoint")
    with contextlib.suppress(*refused):
        checkpoint.convert(work / "checkpoint.pt", work / "converted")
        finding.fail("a pickle that executes a command was converted")


def _state(task: Task, finding: Finding, work: Path, marker: Path) -> None:
    """A state with a pickle, and with file names outside its folder."""
    del task
    from c2l_lsp.engine.storage.store import FolderStore
    from tests.soak.harness import saver

    pickled = _pickled(marker)
    for file, data in (("saved.msgpack", pickled), ("state.safetensors", pickled), ("manifest.json", b"")):
        root = work / f"state-{file}"
        store = FolderStore(root)
        store.save(*saver.content(1))
        generation = root / (root / "CURRENT").read_text(encoding="ascii")
        if file == "manifest.json":
            data = json.dumps({"schema": 1, "sums": {"../../../etc/hostname": "0" * 32}}).encode()
        (generation / file).write_bytes(data)
        try:
            store.load()
            finding.fail(f"a state with a hostile {file} was loaded")
        except StateError:
            pass
        finally:
            store.close()


def _model(task: Task, finding: Finding, work: Path, marker: Path) -> None:
    """A model folder with its own Python code and pickled weights."""
    del task
    from c2l_lsp.model.lm import base

    folder = work / "model"
    folder.mkdir()
    config = {
        "model_type": "evil",
        "architectures": ["Evil"],
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": "evil.T"},
        "tokenizer_class": "T",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.T", None]}}))
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    (folder / "pytorch_model.bin").write_bytes(_pickled(marker))
    try:
        base.load(Model(path=str(folder)))
        finding.fail("a model with its own code was loaded")
    except ModelError as error:
        finding.expect(str(folder) in str(error), f"the model is not named: {error}")
    except Exception as error:  # the model's own code was reached
        finding.fail(f"a model with its own code: {type(error).__name__}: {error}")


def _adapter(task: Task, finding: Finding, work: Path, marker: Path) -> None:
    """A valid model folder that also contains a hostile PEFT adapter, which transformers would load automatically.

    The adapter has pickled weights, another folder as its base model, and a library that executes code.
    """
    del task
    from c2l_lsp.model.lm import base

    settings = load_user()[0].model
    sound = base.load(settings)
    folder, evil = work / "adapted", work / "evil-base"
    for place in (folder, evil):
        place.mkdir()
        sound.lm.save_pretrained(place)
        sound.tokenizer.save_pretrained(place)
    (evil / "model.safetensors").unlink()
    (evil / "pytorch_model.bin").write_bytes(_pickled(marker))
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj"],
        "base_model_name_or_path": str(evil),
        "auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"},
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.bin").write_bytes(_pickled(marker))
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    try:
        loaded = base.load(msgspec.structs.replace(settings, path=str(folder)))
    except ModelError as error:
        finding.expect(str(folder) in str(error), f"the model is not named: {error}")
        return
    finding.expect(loaded.digest == sound.digest, "an adapter in the model folder was loaded")


def _pickled(marker: Path) -> bytes:
    """A protocol-0 pickle that calls os.system."""
    return b"cposix\nsystem\n(V" + f"touch '{marker}'".encode() + b"\ntR."


def _modules(task: Task, finding: Finding, work: Path, marker: Path) -> None:
    """A current folder with files that are named like imported modules."""
    evil = f"open({str(marker)!r}, 'w').close()\n"
    for name in ("sitecustomize.py", "usercustomize.py", "conftest.py", "torch.py", "msgspec.py", "c2l_lsp.py"):
        (work / name).write_text(evil)
    script = (  # like the installed c2l-lsp: the current folder is not on sys.path
        f"import sys; sys.path = [p for p in sys.path if p]; sys.path.append({str(PACKAGE.parent)!r}); "
        "from c2l_lsp.server.app import serve; serve()"
    )
    with start_server(task.work, (sys.executable, "-c", script), cwd=work) as editor:
        editor.initialize([work])
        try:
            editor.ready(180 * task.patience)
        except TimeoutError as error:
            finding.fail(f"in a hostile folder: {error}", late=True)


def _git(task: Task, finding: Finding, work: Path, marker: Path) -> None:
    """A repository whose git configuration and hooks start programs."""
    del task
    from c2l_lsp.engine.session import Session
    from c2l_lsp.repo.history import git_history

    root = project(work / "repository", 4)
    script = _script(work / "evil.sh", marker)

    def configure(*args: str) -> None:
        subprocess.run(["git", *args], cwd=root, check=True, capture_output=True, timeout=60)

    configure("init", "-q")
    (root / ".gitattributes").write_text("*.py diff=evil filter=evil\n")
    configure("add", ".")
    for text in ("one", "two"):
        (root / "pkg0" / "m0.py").write_text(f"VALUE = '{text}'\n")
        configure("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-a", "-m", text)
    for key in (
        "core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.askPass", "diff.external",
        "diff.evil.textconv", "diff.evil.command", "filter.evil.clean", "filter.evil.process", "gpg.program",
        "credential.helper", "core.gitProxy",
    ):  # fmt: skip
        configure("config", key, str(script))
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "pre-commit"):
        (root / ".git" / "hooks").mkdir(exist_ok=True)
        _script(root / ".git" / "hooks" / hook, marker)
    configure("config", "remote.origin.url", f"ext::{script}")
    configure("config", "remote.origin.promisor", "true")
    configure("config", "extensions.partialClone", "origin")
    marker.unlink(missing_ok=True)
    with in_process.state_in(work / "kept"), Session(in_process.settings()) as session:
        session.open(root)
    with contextlib.suppress(C2LError):
        head = git_history.head_commit(root)
        finding.expect(head, "no head")
        git_history.diff_text(root, None, head or "HEAD")
        git_history.changed_files(root, None, head or "HEAD")
