"""The text embeddings of Code2LoRA, of diffs and of repositories, from a frozen encoder.

Both encode a text without special tokens, cut the ids into overlapping windows, decode each window, tokenise it again
the default way (special tokens, truncation) and average the last hidden states over its tokens. They differ in

| | windows | pooling | norm |
|---|---|---|---|
| diff | 512 tokens | max ‖ mean over windows | none |
| repository | 2048 tokens | mean over a file's windows, then mean ‖ max over files | L2 |

`in_repository` and `in_diff` define which files and hunks the caller must pass. Source: Code2LoRA, arXiv 2606.06492,
and its published embeddings. The encoder is `Qwen/Qwen3-Embedding-0.6B` for Qwen base models, else the base model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import transformers
from torch import Tensor

from c2l_lsp.errors import ModelError
from c2l_lsp.model.lm import model_folder
from c2l_lsp.model.lm.base import BaseModel, data_only_config

PUBLISHED_ENCODER = "Qwen/Qwen3-Embedding-0.6B"
MAX_FILE_BYTES = 2_000_000
DIFF_SUFFIXES = frozenset({".py", ".md", ".rst"})
FOREIGN_FOLDERS = frozenset(
    {".git", "__pycache__", ".venv", "venv", "env", "node_modules", "dist", "build", ".tox", ".mypy_cache"}
)
"""Folders of vendored or built files, which are not part of a diff."""


@dataclass(frozen=True)
class Windows:
    """How a text is cut, in tokens: window length, overlap of neighbouring windows, shortest window that is used."""

    window: int
    overlap: int
    shortest: int

    def limited_to(self, longest: int) -> Windows:
        """The windows for an encoder of at most `longest` tokens, with the same relative overlap."""
        if longest >= self.window:
            return self
        return Windows(longest, longest * self.overlap // self.window, min(self.shortest, longest))

    def cut(self, ids: Sequence[int]) -> list[list[int]]:
        """The windows of token ids; the last one ends with the text. Empty if the text is too short."""
        step = self.window - self.overlap
        starts = range(0, max(1, len(ids) - self.overlap), step)
        windows = [list(ids[start : start + self.window]) for start in starts]
        return [window for window in windows if len(window) >= self.shortest]


DIFF = Windows(window=512, overlap=64, shortest=16)
REPOSITORY = Windows(window=2048, overlap=256, shortest=8)


def in_repository(path: str, size: int) -> bool:
    """Whether a tracked file of `size` bytes is part of the repository embedding: Python files, tests included."""
    return path.endswith(".py") and 0 < size <= MAX_FILE_BYTES


def in_diff(path: str) -> bool:
    """Whether the hunks of a file are part of a diff: Python and documentation, without paths that contain "test"."""
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).suffix.lower() not in DIFF_SUFFIXES:
        return False
    return not any(part in FOREIGN_FOLDERS or "test" in part.lower() for part in parts)


def pool_diff(chunks: Tensor) -> Tensor:
    """The embedding [2·hidden] of a diff with window vectors [K, hidden]: max ‖ mean; zeros if K is 0."""
    if not len(chunks):
        return torch.zeros(2 * chunks.shape[1])
    return torch.cat([chunks.amax(dim=0), chunks.mean(dim=0)])


def pool_files(files: Tensor) -> Tensor:
    """The embedding [2·hidden] of a repository with file vectors [F, hidden]: mean ‖ max, over its norm + 1e-12."""
    if not len(files):
        return torch.zeros(2 * files.shape[1])
    pooled = torch.cat([files.mean(dim=0), files.amax(dim=0)])
    return pooled / (pooled.norm() + 1e-12)


class EmbeddingEncoder:
    """A frozen transformers model and its tokenizer, used as an encoder of texts.

    `hidden` is the width of a vector (embeddings are twice as wide), `digest` identifies the weights. Results are fp32
    on the CPU. Up to rounding, they do not depend on the other texts of a call: padding is masked.
    """

    def __init__(self, model: Any, tokenizer: Any, *, digest: str, longest: int = 0, batch: int = 8) -> None:  # noqa: ANN401 - any transformers pair
        self._model, self._tokenizer, self._batch = model.eval(), tokenizer, batch
        self.digest = digest
        self.hidden = int(model.config.hidden_size)
        longest = longest or int(getattr(model.config, "max_position_embeddings", None) or REPOSITORY.window)
        self._diff, self._repository = DIFF.limited_to(longest), REPOSITORY.limited_to(longest)

    @classmethod
    def of_base(cls, base: BaseModel, batch: int = 8) -> EmbeddingEncoder:
        """The base model itself as encoder, for base models without a published encoder."""
        return cls(base.body, base.tokenizer, digest=base.digest, longest=base.max_context, batch=batch)

    def diff_chunks(self, diffs: Sequence[str]) -> list[Tensor]:
        """Window vectors [K, hidden] of each diff; K is 0 for a blank or short diff."""
        return self._window_vectors([diff if diff.strip() else "" for diff in diffs], self._diff)

    def diffs(self, diffs: Sequence[str]) -> Tensor:
        """Diff embeddings [N, 2·hidden]."""
        rows = [pool_diff(chunks) for chunks in self.diff_chunks(diffs)]
        return torch.stack(rows) if rows else torch.empty(0, 2 * self.hidden)

    def files(self, texts: Sequence[str], cache: MutableMapping[bytes, Tensor] | None = None) -> Tensor:
        """File vectors [N, hidden]: the mean over the windows of each file, zeros for a file under 8 tokens.

        Vectors are looked up in `cache` by a hash of the text, and new ones are added to it.
        """
        cache = {} if cache is None else cache
        names = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        new = {name: text for name, text in zip(names, texts, strict=True) if name not in cache}
        for name, chunks in zip(new, self._window_vectors(list(new.values()), self._repository), strict=True):
            cache[name] = chunks.mean(dim=0) if len(chunks) else torch.zeros(self.hidden)
        return torch.stack([cache[name] for name in names]) if names else torch.empty(0, self.hidden)

    def repository(self, texts: Sequence[str], cache: MutableMapping[bytes, Tensor] | None = None) -> Tensor:
        """The repository embedding [2·hidden] of the texts of all files; equal files count as often as they occur."""
        return pool_files(self.files(texts, cache))

    def _window_vectors(self, texts: Sequence[str], windows: Windows) -> list[Tensor]:
        counts, texts_of_windows = [], []
        for text in texts:
            cut = windows.cut(self._ids(text)) if text else []
            counts.append(len(cut))
            texts_of_windows += [self._tokenizer.decode(window, skip_special_tokens=True) for window in cut]
        return list(torch.split(self._means(texts_of_windows, windows.window), counts)) if counts else []

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    @torch.no_grad()
    def _means(self, windows: list[str], longest: int) -> Tensor:
        """Mean last hidden state [N, hidden] over the tokens of each window; zeros for a window without tokens."""
        means = torch.zeros(len(windows), self.hidden)
        if not windows:
            return means
        ids: list[list[int]] = self._tokenizer(windows, truncation=True, max_length=longest)["input_ids"]
        for rows in self._batches([len(row) for row in ids]):
            means[rows] = self._mean([ids[row] for row in rows])
        if not bool(torch.isfinite(means).all()):
            raise ModelError("The text encoder produced numbers that are not finite; set c2l.model.dtype to float32.")
        return means

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        order = sorted((row for row, length in enumerate(lengths) if length), key=lambda row: lengths[row])
        for start in range(0, len(order), self._batch):
            yield order[start : start + self._batch]

    def _mean(self, ids: list[list[int]]) -> Tensor:
        width, device = max(map(len, ids)), self._model.device
        padded = torch.tensor([row + [0] * (width - len(row)) for row in ids], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids], device=device)
        last = self._model(input_ids=padded, attention_mask=mask, use_cache=False).last_hidden_state  # [n, T, hidden]
        weight = mask[..., None].float()
        mean: Tensor = (torch.where(weight > 0, last.float(), 0.0)).sum(dim=1) / weight.sum(dim=1)
        return mean.cpu()


def load_encoder(
    name: str = PUBLISHED_ENCODER,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    offline: bool = False,
) -> EmbeddingEncoder:
    """Load an encoder by Hub name or folder, in fp32 as for the published embeddings.

    Raises ModelError if it is not available. With `offline` nothing is downloaded.
    """
    arguments: dict[str, Any] = {"local_files_only": offline, "trust_remote_code": False, "revision": revision}

    def unavailable(error: Exception) -> ModelError:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "offline: it must be on this machine" if offline else "check the name and the network"
        return ModelError(f"The text encoder {name} cannot be loaded ({hint}): {first}")

    if Path(name).is_dir():
        model_folder.check(Path(name))
    with model_folder.foreign_files(unavailable):
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **arguments)
        model = transformers.AutoModel.from_pretrained(
            name, config=data_only_config(name, None, **arguments), dtype=dtype, use_safetensors=True, **arguments
        )
    commit = getattr(model.config, "_commit_hash", None) or revision or ""
    return EmbeddingEncoder(model.to(device).requires_grad_(False), tokenizer, digest=f"{name}@{commit}@{dtype}")
