"""A workspace folder's adapter: choosing files, embedding chunks, updating the state, generating and validating.

Writing to disk belongs in `storage`, answering requests in `completion`. Never imports `completion`.
"""
