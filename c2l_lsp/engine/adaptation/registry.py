"""The hypernetwork of a workspace, by the setting `c2l.adapter.hypernetwork`.

A new hypernetwork is a file in `model/hypernet` that implements `protocol.Hypernetwork`, and a row in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from c2l_lsp.config import Settings, state_root
from c2l_lsp.cooperative import Slices
from c2l_lsp.errors import AdapterError, CheckpointError
from c2l_lsp.model.hypernet import checkpoint
from c2l_lsp.model.hypernet import prior as priors
from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder, load_encoder
from c2l_lsp.model.hypernet.gradient_memory import RULE, GradientMemory
from c2l_lsp.model.hypernet.output_gradients import output_gradients_in_slices
from c2l_lsp.model.hypernet.prior import Curvature, MemoryPrior
from c2l_lsp.model.hypernet.protocol import Hypernetwork
from c2l_lsp.model.hypernet.published import PUBLISHED_BASE, PublishedKind
from c2l_lsp.model.lm.base import ASSETS, BaseModel
from c2l_lsp.redaction import longest_piece

Builder = Callable[[BaseModel, Mapping[str, Tensor], bool], Hypernetwork | None]
"""(base model, tensors saved with the state, offline) → hypernetwork; None: its prior must be estimated first."""

PRIOR_FILE = "memory.safetensors"

PRIOR_TOKENS = 20_000
"""Positions of the folder's own text that a prior is estimated from if none ships with the base model."""


def shipped_prior(model: BaseModel) -> MemoryPrior | None:
    """Return the `memory` prior that ships with a model, None for other models or other weights."""
    path = ASSETS / model.id / PRIOR_FILE
    return priors.load(path, model.digest) if path.is_file() else None


def memory(model: BaseModel, extra: Mapping[str, Tensor], offline: bool) -> Hypernetwork | None:
    """Return `memory` with the shipped prior, else with the one estimated earlier; None if there is neither."""
    del offline
    prior = shipped_prior(model) or _saved_prior(extra, model.d)
    return GradientMemory(model, prior) if prior is not None else None


def _saved_prior(extra: Mapping[str, Tensor], d: int) -> MemoryPrior | None:
    """The prior saved with a state; None if it has another version: it is estimated again."""
    try:
        if not extra:
            return None
        prior = priors.from_tensors(extra)
        priors.check(prior, d)
        if extra.keys() != priors.to_tensors(prior).keys():
            return None
    except CheckpointError:
        return None
    return prior


def memory_digest(model: BaseModel) -> str:
    """Return what the digest of `memory` for a model begins with, whatever its prior."""
    return f"{RULE}/{model.digest}/"


def estimate_prior(
    model: BaseModel, texts: Iterable[Slices[str]], progress: Callable[[int, int], None]
) -> Slices[MemoryPrior | None]:
    """Estimate a prior from texts, in steps, until `PRIOR_TOKENS` positions; None if all texts are empty."""
    seen = Curvature.zeros(model.d)
    for reading in texts:
        text = longest_piece((yield from reading)[:6000])
        if not text.strip():
            continue
        found = yield from output_gradients_in_slices(model, [text])
        seen.add(found.e, found.h)
        progress(min(seen.n, PRIOR_TOKENS), PRIOR_TOKENS)
        yield
        if seen.n >= PRIOR_TOKENS:
            break
    return priors.estimate(seen) if seen.n else None


def published(kind: PublishedKind) -> Builder:
    """Return the builder of `static` or `evo`: from weights beside a shipped model, or for Qwen from the Hub."""

    def build(model: BaseModel, extra: Mapping[str, Tensor], offline: bool) -> Hypernetwork:
        del extra
        own = ASSETS / model.id / kind
        if (own / checkpoint.MANIFEST).is_file():
            return checkpoint.load(own).hypernetwork(model, EmbeddingEncoder.of_base(model))
        if model.id != PUBLISHED_BASE:
            raise AdapterError(
                f"c2l.adapter.hypernetwork is {kind}, but there are no {kind} weights for the model {model.id}; "
                "set it to auto or memory."
            )
        found = checkpoint.load_published(kind, state_root() / "hypernetworks", offline=offline)
        return found.hypernetwork(model, load_encoder(device=model.device, offline=offline))

    return build


KINDS: dict[str, Builder] = {"memory": memory, "static": published("static"), "evo": published("evo")}
AUTO = "memory"
"""The kind that `auto` stands for: the best in the adapter benchmark."""


def build(settings: Settings, model: BaseModel, extra: Mapping[str, Tensor]) -> Hypernetwork | None:
    """Return the hypernetwork of the settings; None if its prior must first be estimated from text.

    `extra` are tensors that were saved with a state (an estimated prior). AdapterError if there are no weights.
    """
    kind = settings.adapter.hypernetwork
    try:
        return KINDS[AUTO if kind == "auto" else kind](model, extra, settings.model.offline)
    except CheckpointError as error:
        raise AdapterError(str(error)) from error
