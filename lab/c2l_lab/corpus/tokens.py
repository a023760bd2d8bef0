"""A built corpus as token files: what a tokenizer makes of every kept file, sharded and compressed.

OUT/tokens-00000-<digest>.zst beside the text shards, in the same order; `tokens` in the manifest counts them by
repository. Training itself reads the text: holes are cut between characters, and tokens depend on where.
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

from c2l_lab.corpus.corpus import Document, documents, manifest_of, write_whole
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lsp.errors import CorpusError

_GROUP = 256  # files cut at a time


def digest_of(tokenizer: CodeTokenizer) -> str:
    """What tells one tokenizer from another: a digest of its file's text."""
    return hashlib.sha256(tokenizer.plain().to_str().encode()).hexdigest()[:16]


def tokenise(
    corpus: Path, tokenizer: CodeTokenizer, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Write the token files of `corpus` and count them in its manifest, which is returned.

    Raises CorpusError (no corpus, a vocabulary above 65,536, disk).
    """
    if tokenizer.vocabulary > 2**16:
        raise CorpusError(f"Token files hold 16 bits a token; {tokenizer.vocabulary} entries are too many.")
    manifest, done = manifest_of(corpus), 0
    counts: Counter[str] = Counter()
    shards: list[str] = []
    for shard in manifest["shards"]:
        records = []
        for group in _groups(documents(corpus, [shard])):
            for document, ids in zip(group, tokenizer.encode_batch([d.text for d in group]), strict=True):
                counts[document.repo] += len(ids)
                records.append({"id": document.id, "repo": document.repo, "ids": np.array(ids, "<u2").tobytes()})
            done += len(group)
            progress(done, manifest["files"])
        data = zstandard.ZstdCompressor(level=6).compress(b"".join(map(msgpack.packb, records)))
        shards.append(f"tokens-{len(shards):05d}-{hashlib.sha256(data).hexdigest()[:8]}.zst")
        write_whole(corpus / shards[-1], data)
    for about in manifest["repositories"]:
        about["tokens"] = counts[about["name"]]
    manifest["tokens"] = {"tokenizer": digest_of(tokenizer), "count": sum(counts.values()), "shards": shards}
    write_whole(corpus / "manifest.json", json.dumps(manifest, indent=1).encode())
    for old in set(corpus.glob("tokens-*.zst")) - {corpus / name for name in shards}:
        old.unlink(missing_ok=True)
    return manifest


def streams(corpus: Path, tokenizer: CodeTokenizer) -> Iterator[tuple[str, NDArray[np.uint16]]]:
    """(repository, token ids) of every kept file, in shard order. Raises CorpusError where none fit `tokenizer`."""
    about = manifest_of(corpus).get("tokens") or {}
    if about.get("tokenizer") != digest_of(tokenizer):
        raise CorpusError(f"{corpus} has no token files of this tokenizer: run `c2l-lsp corpus tokens` first.")
    for shard in about["shards"]:
        with (corpus / shard).open("rb") as stream, zstandard.ZstdDecompressor().stream_reader(stream) as reader:
            for record in msgpack.Unpacker(reader, max_buffer_size=1 << 30):
                yield record["repo"], np.frombuffer(record["ids"], "<u2")


def _groups(found: Iterator[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    for document in found:
        group.append(document)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group
