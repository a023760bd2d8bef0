"""`text2lora`: a LoRA from what is said about the files."""

from __future__ import annotations

from c2l_lab.benchmarks.methods.networked import Networked, published
from c2l_lab.benchmarks.methods.protocol import Kit


def text2lora(kit: Kit) -> Networked:
    """A LoRA from what is said about the files."""
    return Networked(*published(kit, "text2lora"))
