"""The laboratory of c2l-lsp: corpus, training, benchmarks. Nothing of it is needed to use the product."""
