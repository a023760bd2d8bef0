"""The GRU of `evo`: it carries a repository's state from commit to commit."""

from __future__ import annotations

from msgspec import Struct
from torch import Tensor, nn

from c2l_lsp.model.hypernet.lora_head import Size


class GRUConfig(Struct, frozen=True, kw_only=True):
    """Shape of the GRU: width of a diff embedding, of a repository embedding and of the state."""

    diff_input_dim: Size = 2048
    repo_state_dim: Size = 2048
    hidden_dim: Size = 2048


class CommitGRU(nn.Module):
    """State of a repository over its commits: h0 from its embedding, one GRU step per diff embedding.

    Gates in torch's order r, z, n: h' = (1 − z)·n + z·h with n = tanh(W_n x + b_n + r·(U_n h + c_n)).
    """

    def __init__(self, config: GRUConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_dim
        self.diff_proj = nn.Sequential(nn.Linear(config.diff_input_dim, width), nn.LayerNorm(width))
        self.repo_init_proj = nn.Sequential(nn.Linear(config.repo_state_dim, width), nn.GELU(), nn.LayerNorm(width))
        self.gru = nn.GRU(width, width, batch_first=True)
        self.output_norm = nn.LayerNorm(width)

    def start(self, repository: Tensor) -> Tensor:
        """h0 [N, H] of repository embeddings [N, repo_state_dim]."""
        h0: Tensor = self.repo_init_proj(repository)
        return h0

    def step(self, diff: Tensor, h: Tensor) -> Tensor:
        """The states [N, H] after diff embeddings [N, diff_input_dim]; rows are folders and do not touch each other."""
        return self.roll(diff[:, None], h)[:, 0]

    def roll(self, diffs: Tensor, h: Tensor) -> Tensor:
        """All states [N, T, H] while T diffs [N, T, diff_input_dim] are folded one after the other, from h [N, H]."""
        states: Tensor = self.gru(self.diff_proj(diffs), h[None].contiguous())[0]
        return states

    def context(self, h: Tensor) -> Tensor:
        """What the head sees of states h [..., H]."""
        ctx: Tensor = self.output_norm(h)
        return ctx
