"""The hyperparameters of a training run. They are stored in `run.json` and in the checkpoint, by field name."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import nn

from c2l_lsp.errors import TrainingError
from c2l_lsp.model.hypernet.checkpoint import CheckpointKind
from c2l_lsp.model.hypernet.gru import GRUConfig
from c2l_lsp.model.hypernet.lora_head import PARENT_MODULE, HeadConfig
from c2l_lsp.model.lm.base import BaseModel


@dataclass(frozen=True)
class Recipe:
    """Architecture, loss terms and sizes of a run. Time limits belong to `trainer.Leg`."""

    kind: CheckpointKind = "static"
    hidden: int = 128  # width of the head's trunk
    rank: int = 16
    alpha: float = 32.0
    residual: bool = True  # the mean repository gets B = 0
    per_layer: bool = True  # the head has coefficients for each layer
    standardised: bool = True  # first layers start as if embeddings were standardised, because they are much alike
    components: int = 24  # with `standardised`: leading principal components of embeddings that they start from
    zero_start: bool = True  # B starts at zero, so the untrained adapter changes nothing
    repositories: int = 16  # per optimiser step, over all processes
    window: int = 512  # tokens per target
    prefix: int = 256  # of them not scored: an editor's prompt has as much text before the cursor
    steps: int = 240  # of the whole run, over which the learning rate follows a cosine
    rate: float = 3e-4
    warmup: int = 20
    weight_decay: float = 0.01
    clip: float = 1.0
    contrast: float = 0.1  # weight of the contrast term
    contrast_every: int = 4  # steps between two contrast terms
    others: int = 1  # other adapters that each target is compared with
    temperature: float = 0.05  # of the contrast term, in nat
    norm: float = 1e-3  # weight of the squared norm of the adapter
    kl: float = 0.0  # weight of the distillation term
    drop: float = 0.7  # up to this share of a repository's files is left out of a state
    seed: int = 0

    def head(self, model: BaseModel, width: int) -> HeadConfig:
        """The head for a base model; `width` is the width of the context vector."""
        return HeadConfig(
            type_dims=projections(model),
            input_dim=width,
            hidden_dim=self.hidden,
            rank=self.rank,
            residual=self.residual,
            layers=model.lm.config.num_hidden_layers if self.per_layer else 0,
        )

    def gru(self, width: int) -> GRUConfig | None:
        """The GRU for embeddings of this width; None for kinds without a GRU."""
        return GRUConfig(diff_input_dim=width, repo_state_dim=width, hidden_dim=width) if self.kind == "evo" else None

    def to_dict(self) -> dict[str, bool | float | str]:
        """The fields by name."""
        return asdict(self)


def projections(model: BaseModel) -> dict[str, tuple[int, int]]:
    """{projection type: (in, out)} of a base model. Raises TrainingError if it has none of them."""
    found = {
        name.rpartition(".")[2]: (module.in_features, module.out_features)
        for name, module in model.lm.named_modules()
        if name.rpartition(".")[2] in PARENT_MODULE and isinstance(module, nn.Linear)
    }
    if not found:
        raise TrainingError(
            f"{model.id} has none of the projections that a LoRA needs ({', '.join(sorted(PARENT_MODULE))})."
        )
    return found
