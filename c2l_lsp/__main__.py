"""The entry point of `c2l-lsp` and of `python -m c2l_lsp`. The search path is cleaned before any other import."""

from c2l_lsp import isolation


def main() -> None:
    """Run the command line, isolated from the current folder and from PYTHONPATH."""
    isolation.isolate()
    from c2l_lsp.cli import main as run

    run()


if __name__ == "__main__":
    main()
