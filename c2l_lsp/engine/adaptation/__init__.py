"""A workspace folder's adapter: choosing files, embedding chunks, updating the state, generating and validating.

What is written to disk, and how, belongs in `storage`; answering requests belongs into `completion`. Never imports
`completion`.
"""
