"""The languages whose files can be indexed."""

from __future__ import annotations

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
