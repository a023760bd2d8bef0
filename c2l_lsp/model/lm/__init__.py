"""The frozen base language model: loading, tokenizer, fill-in-the-middle formats, token healing.

Adapters and hypernetworks belong in `adapter` and `hypernet`.
"""
