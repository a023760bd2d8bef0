"""Rows to fit the mixture gate on: its features at held-out positions and what each expert gives the true token.

The most recently changed files of a repository are held out. All others, without copies of the held-out ones, are in
the token index; a random share of them has neural keys. So every position gives rows of three tiers. Positions are of
two forms: windows of a text, and answers to requests with the text on both sides of the cursor (`mixture_requests`).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from c2l_lab.corpus import licence
from c2l_lab.corpus.commit_stream import licence_of
from c2l_lab.corpus.sources import GitRepository, SourceProblem, git_folder
from c2l_lab.repositories import contamination
from c2l_lab.repositories.source import History
from c2l_lab.train.memory import mixture_requests
from c2l_lsp.cooperative import drain
from c2l_lsp.engine.adaptation.registry import PRIOR_TOKENS, shipped_prior
from c2l_lsp.errors import CorpusError, GitError
from c2l_lsp.model.adapter import mixture
from c2l_lsp.model.adapter.knn_lm import KnnMemory, compute_keys, datastore_entries, suffixes
from c2l_lsp.model.adapter.mixture import Float64Array, MixtureGate, Prediction, Vote
from c2l_lsp.model.adapter.token_index import TokenIndex
from c2l_lsp.model.hypernet import chunking
from c2l_lsp.model.hypernet.prior import whitening_basis
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.repo.history import git_history

TIERS = ("no keys", "some keys", "most keys")
"""What the key vote of a row is made from: nothing, a part of the keyed text of the repository, all of it."""

FORMS = ("text", "request")
"""What a row's position is in: a window of a text, or the answer to a completion request."""

_SHORT_PREFIX, _WINDOW, _MIN_WINDOW = 128, 256, 32
_READ_AT_ONCE = 200  # files
_BATCH = 8  # chunks


@dataclass(frozen=True)
class Sizes:
    """How much is taken of one repository: windows after a long and a short prefix, requests, and characters of text.

    `keyed` is the largest amount of text that gets keys. A repository with less than `least_index` or `least_held_out`
    characters is skipped.
    """

    long_windows: int = 7
    short_windows: int = 3
    requests: int = 24
    keyed: int = 200_000
    held_out: int = 60_000
    least_index: int = 15_000
    least_held_out: int = 6_000
    least_file: int = 2_000


@dataclass(frozen=True)
class Rows:
    """n rows of one repository.

    | field | content |
    |---|---|
    | features [n, F] | FEATURES of the mixture gate |
    | present [n, 2] | whether there is a token vote and a key vote |
    | target [n, 3] | p_LM, r_tok and r_key of the true token |
    | favourites [n, 3, 3] | p_LM, r_tok and r_key of the most likely token of p_LM, of r_tok and of r_key |
    | right [n, 3] | which of these three tokens is the true one |
    | tier [n] | index in TIERS |
    | prefix [n] | tokens before the window or the cursor |
    | form [n] | index in FORMS |
    """

    features: Float64Array
    present: NDArray[np.bool_]
    target: Float64Array
    favourites: Float64Array
    right: NDArray[np.bool_]
    tier: NDArray[np.int64]
    prefix: NDArray[np.int64]
    form: NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> Rows:
        """Read what `save` has written."""
        return cls(**load_file(path))

    def where(self, mask: NDArray[np.bool_]) -> Rows:
        """The rows of a mask [n]."""
        return Rows(**{field.name: getattr(self, field.name)[mask] for field in fields(self)})


@dataclass(frozen=True)
class Excerpt:
    """Tokens that the model reads, and what follows the last of them.

    ids: all of them. targets [n]: the tokens of which one follows each of the last n ids. before [n]: the tokens of the
    text up to each of these. prefix: tokens before the first target. form: index in FORMS.
    """

    ids: Sequence[int]
    targets: Sequence[Collection[int]]
    before: Sequence[Sequence[int]]
    prefix: int
    form: int = 0

    @classmethod
    def of_window(cls, ids: Sequence[int], prefix: int) -> Excerpt:
        """The positions of a window of a text from index `prefix` on."""
        targets = [(token,) for token in ids[prefix + 1 :]]
        return cls(ids[:-1], targets, suffixes(ids, prefix, len(ids) - 1), prefix)


@dataclass(frozen=True)
class HeldOut:
    """Texts of a repository by path: `indexed` for the memories, `scored` for the rows."""

    indexed: dict[str, str]
    scored: dict[str, str]


@dataclass(frozen=True)
class Origin:
    """The newest commit of a repository and the licence it states."""

    folder: Path
    commit: str
    licence: str


def origin(name: str, mirror: Path) -> Origin:
    """Find a repository in `mirror`. Raises CorpusError if it is not there or has no permissive licence."""
    try:
        folder = git_folder(name, mirror)
        commit = GitRepository(folder).commit()
        found = licence_of(folder, git_history.tree(folder, commit))
    except (SourceProblem, GitError) as problem:
        raise CorpusError(f"{name} cannot be used: {problem}.") from problem
    if found not in licence.PERMISSIVE:
        raise CorpusError(f"{name} cannot be used: its licence is {found}.")
    return Origin(folder, commit, found)


def split(name: str, mirror: Path, sizes: Sizes) -> HeldOut:
    """The files of the newest commit. Raises CorpusError as `origin` does, and if there is too little text."""
    found = origin(name, mirror)
    source = History(name, found.folder, found.commit, (0,))
    paths = source.paths()
    texts: dict[str, str] = {}
    for start in range(0, len(paths), _READ_AT_ONCE):
        texts |= source.read(paths[start : start + _READ_AT_ONCE], 0)
    order = dict.fromkeys([*source.touched(), *paths])
    return _held_out(name, {path: texts[path] for path in order if path in texts}, sizes)


def _held_out(name: str, texts: Mapping[str, str], sizes: Sizes) -> HeldOut:
    """The first of `texts` are scored, at most a quarter of them."""
    scored: dict[str, str] = {}
    for path, text in texts.items():
        if sum(map(len, scored.values())) >= sizes.held_out or len(scored) >= max(1, len(texts) // 4):
            break
        if len(text) >= sizes.least_file:
            scored[path] = text
    rest = {path: text for path, text in texts.items() if path not in scored}
    copies = contamination.contaminated(rest, scored)
    indexed = {path: text for path, text in rest.items() if path not in copies}
    if sum(map(len, indexed.values())) < sizes.least_index or sum(map(len, scored.values())) < sizes.least_held_out:
        raise CorpusError(f"{name} cannot be used: it has too little text.")
    return HeldOut(indexed, scored)


@dataclass(frozen=True)
class Memories:
    """The token index of a repository, and the datastore entries of the chunks with keys."""

    index: TokenIndex
    entries: list[dict[str, Tensor]]

    def keyed(self, share: float, basis: Tensor, gate: MixtureGate) -> KnnMemory | None:
        """The kNN memory of a share of the entries, searched with the scores of the key vote."""
        some = self.entries[: round(share * len(self.entries))]
        if not some:
            return None
        ids, keys = torch.cat([one["ids"] for one in some]), torch.cat([one["keys"] for one in some])
        return KnnMemory.of(ids, keys, basis, gate)


@torch.inference_mode()
def memories(model: BaseModel, basis: Tensor, indexed: Mapping[str, str], keyed: int, rng: random.Random) -> Memories:
    """Both memories of the texts. Random files get keys, up to about `keyed` characters."""
    chunks: dict[str, list[int]] = {}  # identical ones are stored once
    by_file: dict[str, list[str]] = {}
    for path, text in indexed.items():
        for chunk in chunking.split(text):
            if chunk not in chunks and any(map(str.isalnum, chunk)):
                chunks[chunk] = [model.start_id, *model.encode(chunk)]
                by_file.setdefault(path, []).append(chunk)
    files, used, chosen = list(by_file), 0, list[list[int]]()
    rng.shuffle(files)
    for chunk in (chunk for path in files for chunk in by_file[path]):
        if used >= keyed:
            break
        used += len(chunk)
        chosen.append(chunks[chunk])
    entries: list[dict[str, Tensor]] = []
    for start in range(0, len(chosen), _BATCH):
        batch = chosen[start : start + _BATCH]
        states = drain(model.hidden_states_in_slices([ids[:-1] for ids in batch]))
        entries += [datastore_entries(basis, h, ids) for h, ids in zip(states, batch, strict=True)]
    names = {chunking.key(chunk): ids for chunk, ids in chunks.items()}
    return Memories(TokenIndex().updated(names), entries)


def windows(
    model: BaseModel, texts: Sequence[str], sizes: Sizes, rng: random.Random
) -> Iterator[tuple[list[int], int]]:
    """Random windows of the texts: token ids, and the length of the prefix that is not scored."""
    long_prefix = min(1024, model.max_context - _WINDOW)
    for prefix, count in ((long_prefix, sizes.long_windows), (_SHORT_PREFIX, sizes.short_windows)):
        found = []
        for text in texts:
            ids = [model.start_id, *model.encode(text)]
            found += [
                ids[begin : begin + prefix + _WINDOW + 1]
                for begin in range(0, len(ids) - prefix - _MIN_WINDOW, _WINDOW)
            ]
        rng.shuffle(found)
        yield from ((window, prefix) for window in found[:count])


@torch.inference_mode()
def key_basis(model: BaseModel, texts: Mapping[str, str], tokens: int = PRIOR_TOKENS) -> Tensor:
    """W [D, d] of the keys: of the shipped prior, else estimated from the repository's own text, as the engine does."""
    prior = shipped_prior(model)
    if prior is not None:
        return prior.keys
    moments, count = torch.zeros(model.d, model.d, dtype=torch.float64), 0
    chunks = (chunk for text in texts.values() for chunk in chunking.split(text))
    while count < tokens and (chunk := next(chunks, None)) is not None:
        h = drain(model.hidden_states_in_slices([[model.start_id, *model.encode(chunk)]]))[0].float()
        moments += (h.T @ h).double()
        count += len(h)
    return whitening_basis(moments / max(count, 1))


@torch.inference_mode()
def collect(model: BaseModel, gate: MixtureGate, texts: HeldOut, sizes: Sizes, seed: str) -> Rows:
    """The rows of a repository, with the votes of `gate`. Raises CorpusError if no file is long enough."""
    rng = random.Random(seed)  # noqa: S311 - a sample, not a secret
    keyed = sizes.keyed if rng.random() < 0.5 else sizes.keyed // rng.choice((2, 4, 8))
    basis = key_basis(model, texts.indexed)
    made = memories(model, basis, texts.indexed, keyed, rng)
    full = made.keyed(1, basis, gate)
    parts: list[Rows] = []
    for excerpt in _excerpts(model, texts, sizes, rng):
        keyed_memories = (None, made.keyed(rng.choice((0.1, 0.25, 0.5)), basis, gate), full)
        parts.append(_rows(model, gate, made.index, keyed_memories, excerpt))
    if not any((part.form == 0).any() for part in parts):
        raise CorpusError("No held-out file is longer than a window.")
    return Rows(**{
        field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Rows)
    })  # fmt: skip


def _excerpts(model: BaseModel, texts: HeldOut, sizes: Sizes, rng: random.Random) -> Iterator[Excerpt]:
    for ids, prefix in windows(model, list(texts.scored.values()), sizes, rng):
        yield Excerpt.of_window(ids, prefix)
    for request in mixture_requests.requests(model, texts.scored, texts.indexed, sizes.requests):
        yield Excerpt(request.ids, request.targets, request.before, request.prefix, form=1)


def _rows(
    model: BaseModel, gate: MixtureGate, index: TokenIndex, keyed: Sequence[KnnMemory | None], excerpt: Excerpt
) -> Rows:
    hidden = drain(model.hidden_states_in_slices([excerpt.ids]))[0][-len(excerpt.targets) :]
    logits = model.inference_logits(hidden).float().numpy()
    keys = None if keyed[-1] is None else compute_keys(keyed[-1].basis, hidden).cpu().numpy()
    norms = torch.logsumexp(torch.from_numpy(logits).double(), -1).tolist()
    columns: dict[str, list[object]] = {field.name: [] for field in fields(Rows)}
    for row, (norm, before, wanted) in enumerate(zip(norms, excerpt.before, excerpt.targets, strict=True)):
        prediction = Prediction(logits[row], norm, int(logits[row].argmax()))
        found = index.find(before)
        tokens = (found, gate.token_vote(found, prediction)) if found.count else None
        for tier, memory in enumerate(keyed):
            seen = None if memory is None or keys is None else memory.search(keys[row], before)
            voted = None if seen is None else (seen, gate.key_vote(seen))
            votes = (tokens and tokens[1], voted and voted[1])
            favourites = [prediction.top_token, *(prediction.top_token if v is None else v.best for v in votes)]
            columns["features"].append(mixture.features(prediction, tokens, voted))
            columns["present"].append([v is not None for v in votes])
            columns["target"].append(_probabilities(prediction, votes, wanted))
            columns["favourites"].append([_probabilities(prediction, votes, (token,)) for token in favourites])
            columns["right"].append([token in wanted for token in favourites])
            columns["tier"].append(tier)
            columns["prefix"].append(excerpt.prefix)
            columns["form"].append(excerpt.form)
    return Rows(**{name: np.array(values) for name, values in columns.items()})


def _probabilities(prediction: Prediction, votes: Sequence[Vote | None], tokens: Collection[int]) -> list[float]:
    """p_LM, r_tok and r_key of some tokens together."""
    p = max(float(prediction.probabilities(np.array([*tokens], np.int32)).sum()), 1e-30)
    return [p, *(0.0 if vote is None else sum(map(vote.probability, tokens)) for vote in votes)]
