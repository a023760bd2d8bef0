"""Which hypernetwork a folder gets. A new hypernetwork is a new row in KINDS and a file in `model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from c2l_lsp.errors import AdapterError
from c2l_lsp.model import prior as priors
from c2l_lsp.model.base import ASSETS, BaseModel
from c2l_lsp.model.hypernet import Hypernetwork
from c2l_lsp.model.memory import Memory
from c2l_lsp.model.prior import MemoryPrior

PRIOR_FILE = "memory.safetensors"


def shipped_prior(model: BaseModel) -> MemoryPrior | None:
    """The memory prior that ships with a model, if this is one of ours; a prior of other weights is not used."""
    path = ASSETS / model.id / PRIOR_FILE
    return priors.load(path, model.digest) if path.is_file() else None


def memory(model: BaseModel, extra: Mapping[str, Tensor]) -> Hypernetwork | None:
    """`memory` with the shipped prior, or with one estimated earlier from the folder's own text; None: estimate it."""
    prior = shipped_prior(model) or (priors.from_tensors(extra) if extra else None)
    return Memory(model, prior) if prior is not None else None


def _needs_weights(kind: str) -> Callable[[BaseModel, Mapping[str, Tensor]], Hypernetwork | None]:
    def build(model: BaseModel, extra: Mapping[str, Tensor]) -> Hypernetwork | None:
        del extra
        raise AdapterError(
            f"c2l.adapter.hypernetwork is {kind}, but there are no {kind} weights for the model {model.id}; "
            "set it to auto or memory."
        )

    return build


KINDS: dict[str, Callable[[BaseModel, Mapping[str, Tensor]], Hypernetwork | None]] = {
    "memory": memory,
    "static": _needs_weights("static"),
    "evo": _needs_weights("evo"),
}
AUTO = "memory"
"""What `auto` means: the best of the adapter table."""


def build(kind: str, model: BaseModel, extra: Mapping[str, Tensor]) -> Hypernetwork | None:
    """The hypernetwork of a setting; None when it must first be estimated from text. AdapterError if it cannot be."""
    return KINDS[AUTO if kind == "auto" else kind](model, extra)
