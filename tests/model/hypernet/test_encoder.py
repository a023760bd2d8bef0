"""The embeddings of diffs and repositories, rule by rule, with a tiny random model and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

from c2l_lsp.errors import ModelError
from c2l_lsp.model.hypernet.encoder import (
    DIFF,
    PUBLISHED_ENCODER,
    REPOSITORY,
    EmbeddingEncoder,
    Windows,
    in_diff,
    in_repository,
    load_encoder,
    pool_diff,
    pool_files,
)

torch.set_num_threads(1)
END = "<|endoftext|>"


def tokenizer(append_end: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE that appends END by default, like that of the published encoder."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    trained.train_from_iterator(["def name(self): return value + 1\n    import os\n"] * 20, trainer)
    if append_end:
        trained.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=trained, eos_token=END, pad_token=END)


def model(seed: int = 0) -> Qwen2Model:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=320, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=4096, initializer_range=0.3,
    )  # fmt: skip
    return Qwen2Model(config).eval()


@pytest.fixture(scope="module")
def encoder() -> EmbeddingEncoder:
    return EmbeddingEncoder(model(), tokenizer(), digest="tiny")


class Spy:
    """Records the shape and mask of every call of the model."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.config, self.device, self.calls = inner, inner.config, inner.device, []

    def eval(self) -> Spy:
        return self

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, **other: Any) -> Any:
        self.calls.append((input_ids, attention_mask))
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, **other)


def of_length(n: int, seed: int = 0) -> str:
    """A text of n tokens: letters that this tokenizer does not merge."""
    generator = torch.Generator().manual_seed(seed)
    text = "".join("QZXJKWVY"[i] for i in torch.randint(8, (n,), generator=generator))
    assert len(tokenizer()(text, add_special_tokens=False)["input_ids"]) == n
    return text


def by_hand(text: str, window: int, overlap: int, shortest: int) -> list[Tensor]:
    """Window vectors, one window at a time, without batches, padding or masks."""
    tok, lm = tokenizer(), model()
    ids, vectors, start = tok.encode(text, add_special_tokens=False), [], 0
    while True:
        part = ids[start : start + window]
        if len(part) >= shortest:
            again = tok(tok.decode(part, skip_special_tokens=True), truncation=True, max_length=window)["input_ids"]
            with torch.no_grad():
                vectors.append(lm(input_ids=torch.tensor([again])).last_hidden_state[0].mean(dim=0))
        if start + window >= len(ids):
            return vectors
        start += window - overlap


def near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


# ---- windows ----------------------------------------------------------------------------------------------------


def test_published_window_sizes() -> None:
    assert Windows(512, 64, 16) == DIFF
    assert Windows(2048, 256, 8) == REPOSITORY


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (15, []),
        (16, [(0, 16)]),
        (512, [(0, 512)]),
        (513, [(0, 512), (448, 513)]),
        (960, [(0, 512), (448, 960)]),
        (961, [(0, 512), (448, 960), (896, 961)]),
    ],
)
def test_windows_of_a_diff(length: int, expected: list[tuple[int, int]]) -> None:
    assert DIFF.cut(range(length)) == [list(range(*ends)) for ends in expected]


def test_windows_of_a_file() -> None:
    assert REPOSITORY.cut(range(7)) == []
    assert [(w[0], w[-1] + 1) for w in REPOSITORY.cut(range(4000))] == [(0, 2048), (1792, 3840), (3584, 4000)]


def test_short_context_gets_proportional_windows() -> None:
    assert REPOSITORY.limited_to(512) == Windows(512, 64, 8)
    assert DIFF.limited_to(512) is DIFF
    assert DIFF.limited_to(10) == Windows(10, 1, 10)
    assert len(EmbeddingEncoder(model(), tokenizer(), digest="", longest=64).diff_chunks([of_length(100)])[0]) == 2


def test_windows_are_decoded_and_tokenised_again_with_specials_and_truncation() -> None:
    """In a full window END replaces the last token; a shorter window gains it."""
    spy = Spy(model())
    EmbeddingEncoder(spy, tokenizer(), digest="").diff_chunks([of_length(600)])
    ((ids, mask),) = spy.calls
    assert mask.sum(dim=1).tolist() == [153, 512]  # 600 − 448 + END, and 511 + END
    end = tokenizer().eos_token_id
    assert [int(row[length - 1]) for row, length in zip(ids, (153, 512), strict=True)] == [end, end]
    assert int((ids * mask == end).sum()) >= 2


def test_special_tokens_written_in_a_text_are_dropped(encoder: EmbeddingEncoder) -> None:
    near(encoder.files([f"{of_length(20)}{END}"]), encoder.files([of_length(20)]))


def test_tokenizer_without_default_special_tokens_adds_none() -> None:
    spy = Spy(model())
    EmbeddingEncoder(spy, tokenizer(append_end=False), digest="").files([of_length(20)])
    assert spy.calls[0][0].shape == (1, 20)


# ---- vectors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [16, 500, 512, 1100])
def test_diff_embedding_is_max_then_mean_of_its_chunks_unnormed(encoder: EmbeddingEncoder, length: int) -> None:
    text = of_length(length)
    chunks = torch.stack(by_hand(text, 512, 64, 16))
    expected = torch.cat([chunks.max(dim=0).values, chunks.mean(dim=0)])
    near(encoder.diffs([text])[0], expected)
    assert abs(float(expected.norm()) - 1) > 0.1


def test_repository_embedding_is_mean_then_max_of_its_files_normed(encoder: EmbeddingEncoder) -> None:
    texts = [of_length(30), of_length(2100, seed=1), of_length(9, seed=2)]
    files = torch.stack([torch.stack(by_hand(text, 2048, 256, 8)).mean(dim=0) for text in texts])
    near(encoder.files(texts), files)
    pooled = torch.cat([files.mean(dim=0), files.max(dim=0).values])
    near(encoder.repository(texts), pooled / pooled.norm())
    assert float(encoder.repository(texts).norm()) == pytest.approx(1, abs=1e-5)


def test_files_are_not_weighted_by_their_length(encoder: EmbeddingEncoder) -> None:
    texts = [of_length(10), of_length(3000, seed=1)]
    one, other = encoder.files(texts)
    mean = encoder.repository(texts)[:16]
    near(mean / mean.norm(), (one + other) / (one + other).norm())


@pytest.mark.parametrize("text", ["", " \n\t ", " " * 600, of_length(15)])
def test_blank_or_short_diff_is_zero(encoder: EmbeddingEncoder, text: str) -> None:
    assert encoder.diff_chunks([text])[0].shape == (0, 16)
    assert torch.equal(encoder.diffs([text]), torch.zeros(1, 32))


def test_file_under_8_tokens_is_pooled_as_a_zero_vector(encoder: EmbeddingEncoder) -> None:
    long, short = of_length(40), of_length(7)
    assert torch.equal(encoder.files([short])[0], torch.zeros(16))
    assert not torch.equal(encoder.files([of_length(8)])[0], torch.zeros(16))
    vector = encoder.files([long])[0]
    pooled = torch.cat([vector / 2, vector.clamp(min=0)])  # mean with a zero row, max with a zero row
    near(encoder.repository([long, short]), pooled / pooled.norm())


def test_equal_files_count_as_often_as_they_occur(encoder: EmbeddingEncoder) -> None:
    one, other = of_length(30), of_length(30, seed=1)
    assert not torch.allclose(encoder.repository([one, one, other]), encoder.repository([one, other]))


def test_empty_input_gives_zeros(encoder: EmbeddingEncoder) -> None:
    assert torch.equal(encoder.repository([]), torch.zeros(32))
    assert torch.equal(encoder.repository(["x"]), torch.zeros(32))
    assert torch.equal(pool_files(torch.zeros(0, 4)), torch.zeros(8))
    assert torch.equal(pool_diff(torch.zeros(0, 4)), torch.zeros(8))
    assert encoder.diffs([]).shape == (0, 32)
    assert encoder.files([]).shape == (0, 16)


def test_window_of_special_tokens_only_is_zero() -> None:
    """Such a window decodes to an empty text, which has no tokens if none are added by default."""
    bare = EmbeddingEncoder(model(), tokenizer(append_end=False), digest="")
    vectors = bare.files([END * 20, of_length(20)])
    assert torch.equal(vectors[0], torch.zeros(16))
    assert bool(vectors[1].any())


# ---- batches and cache ------------------------------------------------------------------------------------------


def test_batches_are_sorted_by_length_and_results_keep_their_order() -> None:
    spy = Spy(model())
    batched = EmbeddingEncoder(spy, tokenizer(), digest="", batch=3)
    lengths = [90, 20, 200, 30, 21, 100, 16]
    together = batched.files([of_length(n, seed=n) for n in lengths])
    assert [sorted(mask.sum(dim=1).tolist()) for _, mask in spy.calls] == [[17, 21, 22], [31, 91, 101], [201]]
    for row, n in zip(together, lengths, strict=True):
        near(row, torch.stack(by_hand(of_length(n, seed=n), 2048, 256, 8)).mean(dim=0))


def test_only_changed_files_are_embedded_again() -> None:
    spy = Spy(model())
    cached, cache = EmbeddingEncoder(spy, tokenizer(), digest=""), {}
    texts = [of_length(20 + n, seed=n) for n in range(5)]
    cached.repository([*texts, texts[0]], cache)
    assert sum(len(ids) for ids, _ in spy.calls) == 5
    spy.calls.clear()
    texts[2] = of_length(50, seed=9)
    incremental = cached.repository(texts, cache)
    assert [tuple(ids.shape) for ids, _ in spy.calls] == [(1, 51)]
    near(incremental, EmbeddingEncoder(model(), tokenizer(), digest="").repository(texts))


def test_maximum_falls_when_its_file_is_removed(encoder: EmbeddingEncoder) -> None:
    texts, cache = [of_length(20, seed=n) for n in range(4)], {}
    before = encoder.repository(texts, cache)
    encoder.repository([*texts, of_length(64, seed=8)], cache)
    assert torch.equal(encoder.repository(texts, cache), before)


def test_numbers_that_are_not_finite_are_refused() -> None:
    broken = model()
    broken.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        EmbeddingEncoder(broken, tokenizer(), digest="").files([of_length(20)])


# ---- which files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("pkg/a.py", True), ("README.md", True), ("docs/index.RST", True), ("setup.cfg", False), ("a.pyi", False),
        ("tests/a.py", False), ("pkg/test_a.py", False), ("pkg/latest.py", False), ("Testing/a.md", False),
        ("build/a.py", False), ("node_modules/x/a.py", False), ("pkg/builder.py", True), (".venv/a.py", False),
    ],
)  # fmt: skip
def test_files_of_a_diff(path: str, counts: bool) -> None:
    assert in_diff(path) is counts


@pytest.mark.parametrize(
    ("path", "size", "counts"),
    [
        ("pkg/a.py", 1, True), ("tests/test_a.py", 9, True), ("a.py", 0, False), ("a.py", 2_000_000, True),
        ("a.py", 2_000_001, False), ("README.md", 9, False), ("build/a.py", 9, True),
    ],
)  # fmt: skip
def test_files_of_a_repository_embedding(path: str, size: int, counts: bool) -> None:
    assert in_repository(path, size) is counts


# ---- loading ----------------------------------------------------------------------------------------------------


def test_encoder_loads_from_a_folder(tmp_path: Path, encoder: EmbeddingEncoder) -> None:
    model().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    loaded = load_encoder(str(tmp_path), offline=True)
    assert loaded.hidden == 16
    near(loaded.diffs([of_length(600)]), encoder.diffs([of_length(600)]))


def test_missing_encoder_raises_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"text encoder .*nowhere cannot be loaded \(offline: "):
        load_encoder(str(tmp_path / "nowhere"), offline=True)
    assert PUBLISHED_ENCODER == "Qwen/Qwen3-Embedding-0.6B"
