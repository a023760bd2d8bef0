"""The one filter: which files of a folder may be read at all, and the only way to read one.

Everything that learns, prompts, diffs or logs goes through `FileFilter`. It fails closed: what cannot be judged
(an unreadable ignore file, an odd name, a link, bytes that are no text) is left out. It never follows a link, never
blocks on a special file and never reads more than files.maxSizeKb of a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from c2l_lsp import config
from c2l_lsp.errors import FolderError, SettingError
from c2l_lsp.repo.filter import reading, rules
from c2l_lsp.repo.filter.content import Refusal
from c2l_lsp.repo.filter.ignore import IgnoreRules, well_formed
from c2l_lsp.repo.filter.reading import FileText

__all__ = ["LANGUAGE_SUFFIXES", "FileFilter", "FileText", "Refusal"]

LANGUAGE_SUFFIXES: dict[str, tuple[str, ...]] = {
    "python": (".py", ".pyi"),
    "javascript": (".js", ".mjs", ".cjs"),
    "javascriptreact": (".jsx",),
    "typescript": (".ts", ".mts", ".cts"),
    "typescriptreact": (".tsx",),
    "java": (".java",),
    "kotlin": (".kt", ".kts"),
    "scala": (".scala", ".sc"),
    "go": (".go",),
    "rust": (".rs",),
    "c": (".c", ".h"),
    "cpp": (".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx"),
    "csharp": (".cs",),
    "ruby": (".rb",),
    "php": (".php",),
    "swift": (".swift",),
    "lua": (".lua",),
    "r": (".r",),
    "julia": (".jl",),
    "dart": (".dart",),
    "elixir": (".ex", ".exs"),
    "haskell": (".hs",),
    "perl": (".pl", ".pm"),
    "shellscript": (".sh", ".bash"),
    "sql": (".sql",),
    "html": (".html", ".htm"),
    "css": (".css",),
    "markdown": (".md",),
    "restructuredtext": (".rst",),
    "yaml": (".yaml", ".yml"),
    "toml": (".toml",),
    "json": (".json",),
}
"""LSP language id → suffixes in lower case."""


class FileFilter:
    """The rules of one folder. Rule files are read once: make a new filter when one of them changed (`affects_rules`).

    Raises FolderError when `root` is no directory, SettingError when files.exclude or files.ignoreFile cannot be
    understood (what should be hidden is unknown then, so nothing may be read). Languages that nobody knows are
    skipped and stand in `.errors`.
    """

    def __init__(self, root: Path, settings: config.Files) -> None:
        try:
            self.root = root.resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise FolderError(f"{root} cannot be opened: {error}.") from error
        if not self.root.is_dir():
            raise FolderError(f"{root} is not a folder.")
        self._settings = settings
        self._limit = settings.max_size_kb * 1024
        self.errors: list[SettingError] = []
        self._suffixes = self._read_languages()
        self._ignores = IgnoreRules(self.root, settings)
        self._digest: str | None = None

    def reloaded(self) -> FileFilter:
        """A filter by the same settings that reads the ignore files again. Errors as for a new one."""
        return FileFilter(self.root, self._settings)

    # --- path rules ------------------------------------------------------------------------------------------------

    def includes(self, path: str) -> bool:
        """Whether the path rules let a file be read. `path` is relative to the root, with '/'."""
        return path.lower().endswith(self._suffixes) and not self.is_ignored(path)

    def is_ignored(self, path: str) -> bool:
        """Return whether the ignore rules exclude a file of any language."""
        return not well_formed(path) or self._ignores.ignores_file(path)

    def includes_directory(self, path: str) -> bool:
        """Whether files below a directory may be admitted; "" is the root. What is not, needs no watching."""
        return path == "" or (well_formed(path) and not self._ignores.folder(path).off)

    def affects_rules(self, path: str) -> bool:
        """Whether a change of this path may change the rules, so that a new filter is due."""
        name = path.rpartition("/")[2]
        return name in (".gitignore", self._settings.ignore_file) or name in rules.MARKERS

    @property
    def digest(self) -> str:
        """Names all rules, contents of ignore files included. Cheap after a whole walk; else walks the directories."""
        if self._digest is None:
            for _ in self.walk_in_steps():
                pass
        if self._digest is None:  # pragma: no cover - walk_in_steps() always sets it
            raise FolderError(f"{self.root} could not be walked.")
        return self._digest

    def _read_languages(self) -> tuple[str, ...]:
        suffixes: set[str] = set()
        known = ", ".join(LANGUAGE_SUFFIXES)
        for language in self._settings.languages:
            if language not in LANGUAGE_SUFFIXES:
                self.errors.append(SettingError(f"c2l.files.languages: {language!r} is not one of {known}."))
            suffixes.update(LANGUAGE_SUFFIXES.get(language, ()))
        return tuple(sorted(suffixes))

    # --- walking ---------------------------------------------------------------------------------------------------

    def walk(self) -> Iterator[str]:
        """The admitted files, sorted, without following links. A directory that cannot be listed is empty."""
        return (path for path in self.walk_in_steps() if path is not None)

    def walk_in_steps(self, start: str = "") -> Iterator[str | None]:
        """As `walk`, below `start`, with a None for each directory so that a caller can watch its time."""
        stamps = blake2b(self._stamp(), digest_size=16)
        usable = self.includes_directory(start) and not (start and reading.passes_through_link(self.root, start))
        pending = [iter((start,))] if usable else []
        while pending:
            path = next(pending[-1], None)
            if path is None:
                pending.pop()
            elif path == start or path.endswith("/"):
                directory = path.rstrip("/")
                folder = self._ignores.folder(directory)
                if not folder.off:
                    yield None
                    if folder.stamp:
                        stamps.update(b"%d:%b%b" % (len(directory), directory.encode(), folder.stamp))
                    pending.append(iter(self._list_directory(directory)))
            elif self.includes(path):
                yield path
        if start == "":
            self._digest = stamps.hexdigest()

    def _list_directory(self, directory: str) -> list[str]:
        """Paths of the regular files and, with a '/' at the end, of the real directories in a directory."""
        prefix = f"{directory}/" if directory else ""
        found = []
        try:
            with os.scandir(self.root / directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) and not getattr(entry, "is_junction", bool)():
                        found.append(f"{prefix}{entry.name}/")
                    elif entry.is_file(follow_symlinks=False):
                        found.append(prefix + entry.name)
        except OSError:
            return []
        return sorted(path for path in found if well_formed(path.rstrip("/")))

    def has_exact_name(self, path: str) -> bool:
        """Whether a file is called just that, letters' case included, and not only opened by that name."""
        return path in self._list_directory(path.rpartition("/")[0])

    def _stamp(self) -> bytes:
        return repr((self._limit, self._suffixes)).encode() + self._ignores.stamp()

    # --- reading ---------------------------------------------------------------------------------------------------

    def read(self, path: str) -> FileText | None:
        """The text of an admitted file; None when it is refused. Never raises for a file's sake."""
        found = self.try_read(path)
        return found if isinstance(found, FileText) else None

    def try_read(self, path: str) -> FileText | Refusal:
        """As `read`, with the reason of a refusal."""
        if not self.includes(path):
            return Refusal.EXCLUDED
        return reading.read_text(self.root, path, self._limit)

    def check_text(self, path: str, text: str) -> FileText | None:
        """An unsaved buffer under the same rules; its mtime_ns is 0. A buffer of a linked file is refused too."""
        if not self.includes(path) or reading.passes_through_link(self.root, path):
            return None
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError:
            return None
        found = reading.check_bytes(data, 0) if len(data) <= self._limit else Refusal.TOO_LARGE
        return found if isinstance(found, FileText) else None
