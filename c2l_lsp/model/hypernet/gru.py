"""The GRU of `evo`: it updates the state of a repository with every commit.

Source: Code2LoRA, arXiv 2606.06492. Parameter names and arithmetic are those of its published checkpoints.
"""

from __future__ import annotations

from msgspec import Struct
from torch import Tensor, nn

from c2l_lsp.model.hypernet.lora_head import Size


class GRUConfig(Struct, frozen=True, kw_only=True):
    """Widths of a diff embedding, of a repository embedding and of the state. Stored in checkpoints by these names."""

    diff_input_dim: Size = 2048
    repo_state_dim: Size = 2048
    hidden_dim: Size = 2048


class CommitGRU(nn.Module):
    """States h [H]: h_0 from a repository embedding, then one GRU step per diff embedding.

    A step is h' = (1 − z) ∘ n + z ∘ h, n = tanh(W_n x + b_n + r ∘ (U_n h + c_n)); x is the projected diff embedding.
    The gates r and z, and the order r, z, n of the weights, are those of `torch.nn.GRU`.
    """

    def __init__(self, config: GRUConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_dim
        self.diff_proj = nn.Sequential(nn.Linear(config.diff_input_dim, width), nn.LayerNorm(width))
        self.repo_init_proj = nn.Sequential(nn.Linear(config.repo_state_dim, width), nn.GELU(), nn.LayerNorm(width))
        self.gru = nn.GRU(width, width, batch_first=True)
        self.output_norm = nn.LayerNorm(width)

    def initial_state(self, repository: Tensor) -> Tensor:
        """h_0 [N, H] of repository embeddings [N, repo_state_dim]."""
        h0: Tensor = self.repo_init_proj(repository)
        return h0

    def step(self, diff: Tensor, h: Tensor) -> Tensor:
        """The states [N, H] after diff embeddings [N, diff_input_dim], from states h [N, H]."""
        return self.unroll(diff[:, None], h)[:, 0]

    def unroll(self, diffs: Tensor, h: Tensor) -> Tensor:
        """The states [N, T, H] after each of T diff embeddings [N, T, diff_input_dim], from states h [N, H]."""
        states: Tensor = self.gru(self.diff_proj(diffs), h[None].contiguous())[0]
        return states

    def context(self, h: Tensor) -> Tensor:
        """The context vectors [..., H] that the head gets for states h [..., H]."""
        ctx: Tensor = self.output_norm(h)
        return ctx
