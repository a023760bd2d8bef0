"""The forward pass of small models: the C kernel and its Python binding, int8 weights, attention, hardware choice.

Arithmetic on given weights only. Tokenizers and model files belong in `lm`, adapters in `adapter`.
"""
