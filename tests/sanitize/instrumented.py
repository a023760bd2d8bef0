"""Loads the kernel that C2L_SANITIZED_KERNEL names in place of the installed one. Also a plugin: `pytest -p`."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ExtensionFileLoader

NAME = "c2l_lsp.model.runtime._kernel"
PATH = os.environ["C2L_SANITIZED_KERNEL"]

if NAME in sys.modules:
    raise ImportError("the installed kernel was loaded first")
_loader = ExtensionFileLoader(NAME, PATH)
_spec = importlib.util.spec_from_loader(NAME, _loader)
if _spec is None:
    raise ImportError(PATH)
sys.modules[NAME] = _module = importlib.util.module_from_spec(_spec)
_loader.exec_module(_module)
