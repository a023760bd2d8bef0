"""Keeps files of the opened folder out of Python's module search.

An editor starts the server in the opened folder. `python -m` puts that folder first on the search path, and a shell may
name it in PYTHONPATH; a `queue.py` there would then run. This module imports only what the interpreter itself has
loaded, not even `__future__`: until `isolate` returns, any other import may find a file of the folder.

`isolate` cannot undo what ran before it: a `sitecustomize.py` or `encodings.py` in PYTHONPATH, or a `c2l_lsp` folder
under `python -m`. Only the program that starts Python can prevent that, and the plugins do: they remove `VARIABLES` and
use the options below.
"""

import os
import sys

VARIABLES = (
    "PYTHONPATH", "PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "PYTHONEXECUTABLE",
    "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT", "PYTHONWARNINGS",
)  # fmt: skip
"""Environment variables that make Python import from other folders, or import a module that they name."""

OPTIONS = ("-E", "-c")
"""Options of Python before a program that starts with `CLEAN`.

`-E` ignores all of `VARIABLES`. `-c` puts an empty entry, the current folder, on the search path; `CLEAN` removes it
before the first import from a file. `-I` would also ignore packages that `pip install --user` installed, and `-P` is
new in Python 3.11.
"""
CLEAN = "import sys; sys.path = [p for p in sys.path if p]"

SAFE_FOLDER = os.path.abspath(os.sep)  # noqa: PTH100 - pathlib is not loaded
"""Working directory of server and engine, so that relative names, such as a model's, mean no file of the project."""


def isolate() -> None:
    """Remove the current folder and PYTHONPATH from the search path, and `VARIABLES` from the environment.

    The folder that holds this package, the standard library and the site directories stay.
    """
    removed = {_real(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)} | {_real("")}
    kept = _installation()
    library = os.path.join(_real(os.path.dirname(os.__file__)), "")  # noqa: PTH118, PTH120
    sys.path[:] = [
        path
        for path in sys.path
        if path and ((real := _real(path)) in kept or real not in removed or f"{real}{os.sep}".startswith(library))
    ]
    sys.pycache_prefix = None
    for name in VARIABLES:
        os.environ.pop(name, None)


def leave_folder() -> None:
    """Make `SAFE_FOLDER` the working directory. Relative names in the variables of c2l_lsp keep their meaning."""
    for name in ("C2L_CONFIG", "C2L_STATE_DIR"):
        if os.environ.get(name):
            os.environ[name] = os.path.abspath(os.environ[name])  # noqa: PTH100
    os.chdir(SAFE_FOLDER)


def _installation() -> set[str]:
    """The folder that holds this package, and the site directories."""
    folders = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]  # noqa: PTH100, PTH120
    site = sys.modules.get("site")  # absent under `python -S`
    if site is not None:
        folders += site.getsitepackages()
        folders += [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return {_real(folder) for folder in folders}


def _real(path: str) -> str:
    """The path without links, in one spelling; "" stands for the current folder. Unchanged if that is deleted."""
    try:
        return os.path.normcase(os.path.realpath(path))
    except OSError:
        return path
