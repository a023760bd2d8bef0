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
from c2l_lsp.repo.filter.ignore import Ignores, well_formed
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
    """The rules of one folder. Rule files are read once: make a new filter when one of them changed (`is_rule`).

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
        self._ignores = Ignores(self.root, settings)
        self._digest: str | None = None

    def renewed(self) -> FileFilter:
        """A filter by the same settings that reads the ignore files again. Errors as for a new one."""
        return FileFilter(self.root, self._settings)

    # --- path rules ------------------------------------------------------------------------------------------------

    def admits(self, path: str) -> bool:
        """Whether the path rules let a file be read. `path` is relative to the root, with '/'."""
        return path.lower().endswith(self._suffixes) and self.permits(path)

    def permits(self, path: str) -> bool:
        """As `admits`, for files of any language."""
        return well_formed(path) and not self._ignores.file_off(path)

    def admits_folder(self, path: str) -> bool:
        """Whether files below a directory may be admitted; "" is the root. What is not, needs no watching."""
        return path == "" or (well_formed(path) and not self._ignores.folder(path).off)

    def is_rule(self, path: str) -> bool:
        """Whether a change of this path may change the rules, so that a new filter is due."""
        name = path.rpartition("/")[2]
        return name in (".gitignore", self._settings.ignore_file) or name in rules.MARKERS

    def relative(self, path: str | Path) -> str | None:
        """An absolute path as seen from the root, links of the root itself resolved; None when it is outside."""
        absolute = Path(os.path.normpath(path))
        for candidate in (absolute, Path(os.path.realpath(absolute.parent)) / absolute.name):
            if candidate != self.root and candidate.is_relative_to(self.root):
                return candidate.relative_to(self.root).as_posix()
        return None

    @property
    def digest(self) -> str:
        """Names all rules, contents of ignore files included. Cheap after a whole walk; else walks the directories."""
        if self._digest is None:
            for _ in self.steps():
                pass
        if self._digest is None:  # pragma: no cover - steps() always sets it
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
        return (path for path in self.steps() if path is not None)

    def steps(self, start: str = "") -> Iterator[str | None]:
        """As `walk`, below `start`, with a None for each directory so that a caller can watch its time."""
        stamps = blake2b(self._stamp(), digest_size=16)
        usable = self.admits_folder(start) and not (start and reading.linked(self.root, start))
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
                    pending.append(iter(self._listed(directory)))
            elif self.admits(path):
                yield path
        if start == "":
            self._digest = stamps.hexdigest()

    def _listed(self, directory: str) -> list[str]:
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

    def lists(self, path: str) -> bool:
        """Whether a file is called just that, letters' case included, and not only opened by that name."""
        return path in self._listed(path.rpartition("/")[0])

    def _stamp(self) -> bytes:
        return repr((self._limit, self._suffixes)).encode() + self._ignores.stamp()

    # --- reading ---------------------------------------------------------------------------------------------------

    def read(self, path: str) -> FileText | None:
        """The text of an admitted file; None when it is refused. Never raises for a file's sake."""
        found = self.load(path)
        return found if isinstance(found, FileText) else None

    def load(self, path: str) -> FileText | Refusal:
        """As `read`, with the reason of a refusal."""
        if not self.admits(path):
            return Refusal.EXCLUDED
        return reading.read_text(self.root, path, self._limit)

    def screen(self, path: str, text: str) -> FileText | None:
        """An unsaved buffer under the same rules; its mtime_ns is 0. A buffer of a linked file is refused too."""
        if not self.admits(path) or reading.linked(self.root, path):
            return None
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError:
            return None
        found = reading.judge(data, 0) if len(data) <= self._limit else Refusal.TOO_LARGE
        return found if isinstance(found, FileText) else None
