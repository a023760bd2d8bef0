"""Where a run may begin besides nothing: at the weights of an exported model, with what that model has read set aside.

A warm-up leads the annealed weights back to the plateau's rate; what they had learned on the way down is found again
only when the rate falls again (Ibrahim et al. 2024, arXiv 2403.08763). Measured: the shipped model, 7.1M tokens on at
its rate of 6e-3 and 3.8M of decay, was where it had been (0.8568 bits per byte, 0.8561 before). Go on at a lower rate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lab.train.base.examples import StreamState, order
from c2l_lsp.errors import CheckpointError, StorageError

MANIFEST = "begun_from.json"
"""In the run's folder: the training manifest of the model that the run began with."""


@dataclass(frozen=True)
class Start:
    """An exported model: weights by their names in training, their digest, and its training manifest."""

    weights: dict[str, Tensor]
    digest: str
    manifest: dict[str, Any]

    def stream(self, documents: Sequence[Document], seed: int) -> StreamState:
        """The corpus from where the model's training left it, if that was in the same order (the same seed)."""
        if self.manifest["recipe"]["examples"]["seed"] != seed:
            return StreamState()
        epoch, part = divmod(float(self.manifest["passes_over_the_corpus"]), 1)
        names = order([document.id for document in documents], seed, int(epoch))
        return StreamState(int(epoch), names[: round(part * len(names))])

    def keep(self, run: Path) -> None:
        """Write the manifest into the run's folder. Raises StorageError when the disk refuses."""
        try:
            run.mkdir(parents=True, exist_ok=True)
            (run / MANIFEST).write_text(json.dumps(self.manifest, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise StorageError(f"The run in {run} can't be written: {error}.") from error


def load(folder: Path, tokenizer: CodeTokenizer) -> Start:
    """Read an exported model (see `export`).

    Raises CheckpointError when it is not whole, was not made by this program, or has another tokenizer.
    """
    try:
        data = (folder / "model.safetensors").read_bytes()
        weights = load_file(folder / "model.safetensors")
        manifest = json.loads((folder / "training_manifest.json").read_text("utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is no model that this program exported, or not whole: {error}.") from error
    if CodeTokenizer(folder).plain().to_str() != tokenizer.plain().to_str():
        raise CheckpointError(f"The model in {folder} was trained with another tokenizer.")
    trained = {name: w.float() for name, w in weights.items() if not name.endswith("o_proj.bias")}
    return Start(trained, hashlib.sha256(data).hexdigest(), manifest)


def parent_of(run: Path) -> dict[str, Any]:
    """The manifest of the model that a run began with; empty for one that began with nothing."""
    file = run / MANIFEST
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}
