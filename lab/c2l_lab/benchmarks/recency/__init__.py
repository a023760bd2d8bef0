"""`bench recency`: the recent memory while commits are followed, with constants and with a GRU trained to set them.

Measurements of whole repositories belong in `adapters`, the estimation of priors in `train.memory`.
"""
