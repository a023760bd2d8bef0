"""How fast: every figure a ratio in one run against real peers, with its bar (`c2l-lsp bench perf`)."""
