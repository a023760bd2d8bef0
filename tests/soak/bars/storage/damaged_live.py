"""The saved state of a real folder is damaged tensor by tensor: the engine reports it and rebuilds the state."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tests.soak.harness import in_process
from tests.soak.harness.bar import Finding, Task
from tests.soak.harness.sources import project

FILES = 6
PLANTS = ("believing",)
FULL = 500
"""From this count on, each tensor gets NaN and both infinities; below, one of them."""


def run(task: Task, finding: Finding) -> None:
    """A damaged file, then NaN and infinities in each tensor, with valid checksums."""
    from c2l_lsp.engine.session import Session
    from c2l_lsp.engine.storage.store import FolderStore
    from c2l_lsp.model.hypernet.gradient_memory import GradientMemory

    root = project(task.work / "project", FILES)
    sound, state = task.work / "sound-state", task.work / "state"
    reads: Any = FolderStore._read
    checks: Any = GradientMemory.check
    with in_process.state_in(state):
        with Session(in_process.settings()) as session:
            made = session.open(root).generation
        shutil.copytree(state, sound)
        if task.planted("believing"):
            FolderStore._read = _believing  # type: ignore[method-assign]
            GradientMemory.check = lambda self, state: None  # type: ignore[method-assign]
        try:
            for what, damage in _damages(_generation(sound), every=task.count >= FULL):
                shutil.rmtree(state)
                shutil.copytree(sound, state)
                damage(_generation(state))
                finding.tried += 1
                _restored(finding, root, made, what)
        finally:
            FolderStore._read, GradientMemory.check = reads, checks  # type: ignore[method-assign]


def _generation(state: Path) -> Path:
    pointer = next(state.glob("*/CURRENT"))
    return pointer.parent / pointer.read_text(encoding="ascii")


def _damages(generation: Path, every: bool) -> list[tuple[str, Any]]:
    """The kinds of damage: name, and a function that damages the folder of a generation."""
    from safetensors.torch import load

    def cut(folder: Path) -> None:
        path = folder / "state.safetensors"
        path.write_bytes(path.read_bytes()[:-7] + b"damaged")

    made: list[tuple[str, Any]] = [("damaged bytes", cut)]
    values = [float("nan"), float("inf"), float("-inf")]
    turn = 0
    for file in ("state.safetensors", "extra.safetensors"):
        for name, tensor in sorted(load((generation / file).read_bytes()).items()):
            if not tensor.is_floating_point() or tensor.numel() == 0:
                continue
            for value in values if every else [values[turn % 3]]:
                made.append((f"{value} in {name} of {file}", _setter(file, name, value)))
            turn += 1
    return made


def _setter(file: str, name: str, value: float) -> Any:
    from safetensors.torch import load, save

    def put(folder: Path) -> None:
        tensors = load((folder / file).read_bytes())
        tensors[name].view(-1)[tensors[name].numel() // 2] = value
        data = save(tensors)
        (folder / file).write_bytes(data)
        manifest = json.loads((folder / "manifest.json").read_bytes())
        manifest["sums"][file] = hashlib.blake2b(data, digest_size=16).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return put


def _restored(finding: Finding, root: Path, made: int, what: str) -> None:
    """The next start reports the damage, and the rebuilt state is finite."""
    from c2l_lsp.engine import wire
    from c2l_lsp.engine.session import Session

    with Session(in_process.settings()) as session:
        try:
            info = session.open(root)
        except Exception as error:  # saved state must never end the engine
            finding.fail(f"{what}: {type(error).__name__}: {error}")
            return
        codes = [event.code for event in session.events if isinstance(event, wire.Trouble)]
        learner = getattr(session.engine.workspace(str(root)), "_learner", None)
        state = learner.state.tensors if learner is not None and learner.state is not None else {}
        extra = learner.prior_tensors if learner is not None else {}
        odd = [name for name, tensor in {**state, **extra}.items() if not bool(tensor.isfinite().all())]
    finding.expect(info.files == FILES and state, f"{what}: not rebuilt: {info.generation} after {made}, {info.files}")
    finding.expect("state" in codes, f"{what}: the damage was not reported, only {codes}")
    finding.expect(not odd, f"{what}: the state still contains it in {', '.join(odd)}")


def _believing(self: Any, generation: str) -> Any:
    """The planted fault: a generation is loaded without any check."""
    import msgspec
    from safetensors.torch import load

    from c2l_lsp.engine.storage.decoding import SavedState
    from c2l_lsp.model.hypernet.protocol import RepoState

    directory = self.root / generation
    saved = msgspec.msgpack.decode((directory / "saved.msgpack").read_bytes(), type=SavedState)
    state, extra = (load((directory / f"{name}.safetensors").read_bytes()) for name in ("state", "extra"))
    return saved, RepoState(state), extra
