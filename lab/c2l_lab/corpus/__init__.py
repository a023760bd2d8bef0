"""Training text: repositories, licences, filters, deduplication, tokenizers, commit streams.

No model is loaded here: training belongs in `train`.
"""
