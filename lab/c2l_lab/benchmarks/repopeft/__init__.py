"""RepoPeftBench: complete an assertion's expected value, over a repository's history.

`schema` names rows and columns, `source` reads the published datasets or our own, `build` makes the same from any git
repositories, `scoring` scores as published and strictly, `run` makes predictions with the product's own decoder.
"""
