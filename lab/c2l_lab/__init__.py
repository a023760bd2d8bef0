"""The laboratory of c2l-lsp: training corpora, model training, benchmarks. The product does not need it."""
