"""`shared`: one LoRA by gradient descent on many training repositories, the same for everybody."""

from __future__ import annotations

import hashlib
import random
import time
from collections import defaultdict
from pathlib import Path

from c2l_lab.benchmarks.adapters.adapter_cache import load_adapter, save_adapter
from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Kit, NotTrained, Options
from c2l_lab.benchmarks.repositories.cases import Case
from c2l_lab.corpus import corpus
from c2l_lsp.errors import AdapterError
from c2l_lsp.model.adapter.finetune_lora import fit_lora
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.lm.base import BaseModel

_PIECE = 6000  # characters taken of a training file: many files rather than whole ones


class SharedLora:
    """One LoRA for everybody."""

    name, own, network = "shared", False, None

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        file = shared_file(kit.model, kit.options)
        if file is None:
            raise NotTrained("give its file (--weights shared=FILE) or a training corpus (--train)")
        self._file, self._adapter = file, None if not file.is_file() else load_adapter(file, kit.model.digest)[0]
        self.digest = f"1/{file.stem}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """The same for every repository; trained now if it was not before."""
        del case, adapters
        if self._adapter is None:
            self._adapter = train_shared(self._kit.model, self._kit.options, self._file)
        return Fitted(self._adapter)


def shared_file(model: BaseModel, options: Options) -> Path | None:
    """Where the shared LoRA is, or will be: named by what decides its weights."""
    if "shared" in options.weights:
        return options.weights["shared"]
    if options.train is None:
        return None
    data = "".join(sorted(corpus.read_manifest(options.train)["shards"]))
    about = f"{model.digest} {data} {options.shared_tokens} {options.rank} {options.rate}"
    return options.work / f"shared-{hashlib.blake2b(about.encode(), digest_size=8).hexdigest()}.safetensors"


def train_shared(model: BaseModel, options: Options, file: Path) -> Adapter:
    """Train the shared LoRA on about `shared_tokens` tokens, files of all training repositories in turn, once over."""
    if file.is_file():
        return load_adapter(file, model.digest)[0]
    if options.train is None:
        raise AdapterError("The shared LoRA is trained on a training corpus; name it with --train.")
    by_repository: dict[str, list[str]] = defaultdict(list)
    for document in corpus.documents(options.train):
        by_repository[document.repo].append(document.text)
    dice = random.Random(0)  # noqa: S311 - a sample, not a secret
    names, texts, read = sorted(by_repository), list[str](), 0
    while read < options.shared_tokens:
        text = dice.choice(by_repository[dice.choice(names)])
        begin = dice.randrange(max(1, len(text) - _PIECE))
        texts.append(text[text.rfind("\n", 0, begin) + 1 : begin + _PIECE])
        read += len(model.encode(texts[-1]))
    started = time.perf_counter()
    adapter = fit_lora(model, texts, rank=options.rank, rate=options.rate, epochs=1.0)
    save_adapter(adapter, file, time.perf_counter() - started)
    return adapter
