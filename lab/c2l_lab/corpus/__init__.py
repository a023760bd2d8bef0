"""Training text: repositories, licences, filters, deduplication, tokenizers, commit streams."""
