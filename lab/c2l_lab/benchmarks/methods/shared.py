"""`shared`: one LoRA, trained by gradient descent on many repositories and used for all."""

from __future__ import annotations

import hashlib
import random
import time
from collections import defaultdict
from pathlib import Path

from c2l_lab.benchmarks.adapters.adapter_cache import load_adapter, save_adapter
from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, NotTrained, Options, Setup
from c2l_lab.corpus import corpus
from c2l_lab.repositories.cases import Case
from c2l_lsp.errors import AdapterError
from c2l_lsp.model.adapter.finetune_lora import fit_lora
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.lm.base import BaseModel

_EXCERPT = 6000  # characters of a training file, so that many files fit the token budget


class SharedLora:
    """One LoRA for all repositories."""

    name, per_repository, network = "shared", False, None

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        file = shared_file(setup.model, setup.options)
        if file is None:
            raise NotTrained("pass its file (--weights shared=FILE) or a training corpus (--train)")
        self._file, self._adapter = file, None if not file.is_file() else load_adapter(file, setup.model.digest)[0]
        self.digest = f"1/{file.stem}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """The shared LoRA, trained now if its file does not exist."""
        del case, adapters
        if self._adapter is None:
            self._adapter = train_shared(self._setup.model, self._setup.options, self._file)
        return Fitted(self._adapter)


def shared_file(model: BaseModel, options: Options) -> Path | None:
    """The file of the shared LoRA; its name depends on everything that determines the weights. None without --train."""
    if "shared" in options.weights:
        return options.weights["shared"]
    if options.train is None:
        return None
    data = "".join(sorted(corpus.read_manifest(options.train)["shards"]))
    about = f"{model.digest} {data} {options.shared_tokens} {options.rank} {options.rate}"
    return options.work / f"shared-{hashlib.blake2b(about.encode(), digest_size=8).hexdigest()}.safetensors"


def train_shared(model: BaseModel, options: Options, file: Path) -> Adapter:
    """Train the shared LoRA for one epoch on about `shared_tokens` tokens drawn from all training repositories."""
    if file.is_file():
        return load_adapter(file, model.digest)[0]
    if options.train is None:
        raise AdapterError("Training the shared LoRA needs a training corpus: --train.")
    by_repository: dict[str, list[str]] = defaultdict(list)
    for document in corpus.documents(options.train):
        by_repository[document.repo].append(document.text)
    rng = random.Random(0)  # noqa: S311 - a sample, not a secret
    names, texts, read = sorted(by_repository), list[str](), 0
    while read < options.shared_tokens:
        text = rng.choice(by_repository[rng.choice(names)])
        begin = rng.randrange(max(1, len(text) - _EXCERPT))
        texts.append(text[text.rfind("\n", 0, begin) + 1 : begin + _EXCERPT])
        read += len(model.encode(texts[-1]))
    started = time.perf_counter()
    adapter = fit_lora(model, texts, rank=options.rank, rate=options.rate, epochs=1.0)
    save_adapter(adapter, file, time.perf_counter() - started)
    return adapter
