"""RepoPeftBench: complete an assertion's expected value, over a repository's history.

`run` makes predictions with the product's own decoder, `scoring` scores them as published and strictly. Building and
reading the datasets belongs in `dataset`.
"""
