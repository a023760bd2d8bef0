"""`python -m c2l_lsp` is `c2l-lsp`."""

from c2l_lsp.cli import main

if __name__ == "__main__":
    main()
