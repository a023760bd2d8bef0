"""The forward pass of Llama-shaped models: fused and int8 weights, attention, the C kernel, CUDA graphs, hardware.

Code here computes on given weights only. Tokenizers and model files belong in `lm`, adapters in `adapter`.
"""
