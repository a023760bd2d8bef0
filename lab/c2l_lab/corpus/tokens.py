"""Token files of a built corpus: the token ids of every file, in compressed shards.

OUT/tokens-00000-<digest>.zst lies beside the text shards, in the same order. The manifest counts the tokens of each
repository. Training does not use these files: it reads the text, because FIM spans are cut between characters and the
cut changes the tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zstandard
from numpy.typing import NDArray

from c2l_lab.corpus.corpus import Document, documents, read_manifest
from c2l_lab.corpus.storage import write_file
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lsp.errors import CorpusError

_BATCH = 256  # files tokenised at a time


def tokenizer_digest(tokenizer: CodeTokenizer) -> str:
    """Return a digest that identifies a tokenizer."""
    return hashlib.sha256(tokenizer.plain().to_str().encode()).hexdigest()[:16]


def tokenise(
    corpus: Path, tokenizer: CodeTokenizer, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Write the token files of `corpus`, add token counts to its manifest, and return the manifest.

    Raises CorpusError without a corpus, for a vocabulary above 65,536, and if the disk is full.
    """
    if tokenizer.vocabulary > 2**16:
        raise CorpusError(f"Token files store 16-bit ids; a vocabulary of {tokenizer.vocabulary} entries is too large.")
    manifest, done = read_manifest(corpus), 0
    counts: Counter[str] = Counter()
    shards: list[str] = []
    for shard in manifest["shards"]:
        records = []
        for batch in _batches(documents(corpus, [shard])):
            for document, ids in zip(batch, tokenizer.encode_batch([d.text for d in batch]), strict=True):
                counts[document.repo] += len(ids)
                records.append({"id": document.id, "repo": document.repo, "ids": np.array(ids, "<u2").tobytes()})
            done += len(batch)
            progress(done, manifest["files"])
        data = zstandard.ZstdCompressor(level=6).compress(b"".join(map(msgpack.packb, records)))
        shards.append(f"tokens-{len(shards):05d}-{hashlib.sha256(data).hexdigest()[:8]}.zst")
        write_file(corpus / shards[-1], data)
    for repository in manifest["repositories"]:
        repository["tokens"] = counts[repository["name"]]
    manifest["tokens"] = {"tokenizer": tokenizer_digest(tokenizer), "count": sum(counts.values()), "shards": shards}
    write_file(corpus / "manifest.json", json.dumps(manifest, indent=1).encode())
    for old in set(corpus.glob("tokens-*.zst")) - {corpus / name for name in shards}:
        old.unlink(missing_ok=True)
    return manifest


def streams(corpus: Path, tokenizer: CodeTokenizer) -> Iterator[tuple[str, NDArray[np.uint16]]]:
    """Yield (repository, token ids) of every file, in shard order. Raises CorpusError without files of `tokenizer`."""
    token_files = read_manifest(corpus).get("tokens") or {}
    if token_files.get("tokenizer") != tokenizer_digest(tokenizer):
        raise CorpusError(f"{corpus} has no token files of this tokenizer: run `c2l-lab corpus tokens` first.")
    for shard in token_files["shards"]:
        with (corpus / shard).open("rb") as stream, zstandard.ZstdDecompressor().stream_reader(stream) as reader:
            for record in msgpack.Unpacker(reader, max_buffer_size=1 << 30):
                yield record["repo"], np.frombuffer(record["ids"], "<u2")


def _batches(found: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    for document in found:
        batch.append(document)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
