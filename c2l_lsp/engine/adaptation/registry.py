"""Which hypernetwork a folder gets. A new hypernetwork is a new row in KINDS and a file in `model`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping

from torch import Tensor

from c2l_lsp.config import Settings, state_root
from c2l_lsp.errors import AdapterError, CheckpointError
from c2l_lsp.model.hypernet import checkpoint
from c2l_lsp.model.hypernet import prior as priors
from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder, load_encoder
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.output_gradients import output_gradients
from c2l_lsp.model.hypernet.prior import Curvature, MemoryPrior
from c2l_lsp.model.hypernet.protocol import Hypernetwork
from c2l_lsp.model.hypernet.published import PUBLISHED_BASE, Kind
from c2l_lsp.model.lm.base import ASSETS, BaseModel

Builder = Callable[[BaseModel, Mapping[str, Tensor], bool], Hypernetwork | None]
"""(model, tensors kept with the folder's state, offline) → hypernetwork."""

PRIOR_FILE = "memory.safetensors"

PRIOR_TOKENS = 20_000
"""Positions of a folder's own text a prior is estimated from when the base model ships none."""


def shipped_prior(model: BaseModel) -> MemoryPrior | None:
    """The memory prior that ships with a model, if this is one of ours; a prior of other weights is not used."""
    path = ASSETS / model.id / PRIOR_FILE
    return priors.load(path, model.digest) if path.is_file() else None


def memory(model: BaseModel, extra: Mapping[str, Tensor], offline: bool) -> Hypernetwork | None:
    """`memory` with the shipped prior, or with one estimated earlier from the folder's own text; None: estimate it."""
    del offline
    prior = shipped_prior(model) or _kept_prior(extra, model.d)
    return GradientMemory(model, prior) if prior is not None else None


def _kept_prior(extra: Mapping[str, Tensor], d: int) -> MemoryPrior | None:
    """A prior that was kept with a state; None for one of another version, which costs an estimate and nothing else."""
    try:
        if not extra:
            return None
        prior = priors.from_tensors(extra)
        priors.check(prior, d)
    except (CheckpointError, IndexError, RuntimeError):  # of no shape that can be looked at
        return None
    return prior


def own_prior(
    model: BaseModel, texts: Iterable[str], tell: Callable[[int, int], None]
) -> Generator[None, None, MemoryPrior | None]:
    """A prior estimated from some texts, one text a slice; None if all are empty."""
    seen = Curvature.zeros(model.d)
    for text in texts:
        if not text.strip():
            continue
        found = output_gradients(model, [text[:6000]])
        seen.add(found.e, found.h)
        tell(min(seen.n, PRIOR_TOKENS), PRIOR_TOKENS)
        yield
        if seen.n >= PRIOR_TOKENS:
            break
    return priors.estimate(seen) if seen.n else None


def published(kind: Kind) -> Builder:
    """`static` and `evo`: weights trained for one of our models ship beside it; for Qwen they come from the Hub."""

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
"""What `auto` means: the best of the adapter table."""


def build(settings: Settings, model: BaseModel, extra: Mapping[str, Tensor]) -> Hypernetwork | None:
    """The hypernetwork of the settings; None when it must first be estimated from text. AdapterError if there is none.

    `extra` are tensors that were kept with a folder's state (a prior estimated from its own text).
    """
    kind = settings.adapter.hypernetwork
    try:
        return KINDS[AUTO if kind == "auto" else kind](model, extra, settings.model.offline)
    except CheckpointError as error:
        raise AdapterError(str(error)) from error
