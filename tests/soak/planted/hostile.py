"""The planted faults of the bar `hostile`: unsafe loading, planted into this process."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from c2l_lsp.errors import CheckpointError


@contextlib.contextmanager
def executing(plant: str) -> Iterator[None]:
    """Within the block, pickles are loaded, a model's code is trusted, or git uses the repository's configuration."""
    import transformers

    from c2l_lsp.model.hypernet import checkpoint
    from c2l_lsp.repo.git import git_process

    real = checkpoint.load, transformers.AutoConfig.from_pretrained, git_process._SAFE

    def unpickled(folder: Path) -> checkpoint.Checkpoint:
        pickle.loads((folder / "checkpoint.pt").read_bytes())
        raise CheckpointError("unpickled")

    def trusted(*args: Any, **more: Any) -> Any:
        return real[1](*args, **{**more, "trust_remote_code": True})

    if plant == "unpickles":
        checkpoint.load = unpickled
    if plant == "trusts_code":
        transformers.AutoConfig.from_pretrained = trusted
    if plant == "obeys_git":
        git_process._SAFE = ()  # type: ignore[assignment]
    try:
        yield
    finally:
        checkpoint.load, transformers.AutoConfig.from_pretrained, git_process._SAFE = real
