"""`static`: the paper's head over a repository embedding."""

from __future__ import annotations

from c2l_lab.benchmarks.methods.networked import Networked, published
from c2l_lab.benchmarks.methods.protocol import Kit


def static(kit: Kit) -> Networked:
    """The paper's static head."""
    return Networked(*published(kit, "static"))
