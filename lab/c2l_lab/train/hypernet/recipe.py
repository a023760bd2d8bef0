"""How one hypernetwork is trained: written to `run.json`, and the scalars of it into the checkpoint."""

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
    """Architecture, what against collapse is on, losses and sizes. Times are set by the leg, not here."""

    kind: CheckpointKind = "static"
    hidden: int = 128  # width of the head's trunk
    rank: int = 16
    alpha: float = 32.0
    residual: bool = True  # the mean repository gets no weights
    per_layer: bool = True  # coefficients for each layer
    standardised: bool = True  # first layers begin as if embeddings had mean 0 and deviation 1 (they nearly agree)
    repositories: int = 16  # of one optimiser step, all processes together
    window: int = 256  # tokens of a target
    steps: int = 240  # of the whole run; the rate falls along a cosine over them
    rate: float = 1e-3
    warmup: int = 20
    weight_decay: float = 0.01
    clip: float = 1.0
    contrast: float = 0.1  # weight of the own-against-others term
    contrast_every: int = 4  # steps between two of them
    others: int = 1  # adapters of other repositories each target is compared with
    temperature: float = 0.05  # nat; of the own-against-others term
    norm: float = 1e-3  # weight of the adapter's squared norm
    kl: float = 0.0  # weight of the divergence from the base that has related code of the repository before it
    drop: float = 0.7  # largest share of a repository's files left out of the state of one target
    seed: int = 0

    def head(self, model: BaseModel, width: int) -> HeadConfig:
        """The head for a base; `width` is that of the context vector."""
        return HeadConfig(
            type_dims=projections(model),
            input_dim=width,
            hidden_dim=self.hidden,
            rank=self.rank,
            residual=self.residual,
            layers=model.lm.config.num_hidden_layers if self.per_layer else 0,
        )

    def gru(self, width: int) -> GRUConfig | None:
        """The GRU for embeddings of `width` numbers, None for kinds without one."""
        return GRUConfig(diff_input_dim=width, repo_state_dim=width, hidden_dim=width) if self.kind == "evo" else None

    def plain(self) -> dict[str, bool | float | str]:
        """Names and values."""
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
