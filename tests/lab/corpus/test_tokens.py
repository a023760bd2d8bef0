from __future__ import annotations

from pathlib import Path

import pytest
from c2l_lab.corpus import corpus, tokens
from c2l_lab.corpus.tokenizer import CodeTokenizer, save, train_tokenizer

from c2l_lsp.errors import CorpusError
from tests.support.training_text import MIT, MakeRepository, module


@pytest.fixture
def built(tmp_path: Path, make_repository: MakeRepository) -> Path:
    for name in ("a/one", "b/two"):
        make_repository(name, {"LICENSE": MIT, **{f"{n}.py": module(n + name[0], i) for i, n in enumerate("xyz")}})
    corpus.build(["a/one", "b/two"], tmp_path / "mirror", tmp_path / "corpus", workers=1)
    return tmp_path / "corpus"


def test_token_files_contain_every_file_and_the_manifest_has_counts(built: Path, tokenizer: CodeTokenizer) -> None:
    made = tokens.tokenise(built, tokenizer)
    expected = [(d.repo, tokenizer.encode(d.text)) for d in corpus.documents(built)]
    assert [(repo, ids.tolist()) for repo, ids in tokens.streams(built, tokenizer)] == expected
    assert made == corpus.read_manifest(built)
    counts = {repository["name"]: repository["tokens"] for repository in made["repositories"]}
    assert counts == {r: sum(len(ids) for repo, ids in expected if repo == r) for r in ("a/one", "b/two")}
    assert made["tokens"]["count"] == sum(counts.values())


def test_token_files_of_another_tokenizer_are_refused_and_replaced(
    tmp_path: Path, built: Path, tokenizer: CodeTokenizer
) -> None:
    tokens.tokenise(built, tokenizer)
    texts = [document.text for document in corpus.documents(built)]
    save(train_tokenizer(texts, 520), tmp_path / "other")
    other = CodeTokenizer(tmp_path / "other")
    with pytest.raises(CorpusError, match="corpus tokens"):
        list(tokens.streams(built, other))
    tokens.tokenise(built, other)
    assert len(list(built.glob("tokens-*"))) == 1
    assert len(list(tokens.streams(built, other))) == 6
