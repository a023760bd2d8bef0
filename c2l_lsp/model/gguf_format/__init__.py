"""GGUF models: finding the files of Ollama and LM Studio, reading headers, converting to Hugging Face folders.

Loading the folders belongs to `c2l_lsp.model.lm`.
"""
