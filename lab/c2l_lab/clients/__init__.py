"""Clients of the processes under measurement: an editor that speaks LSP, and the engine alone.

They know the protocols only. What is asked and measured belongs in `benchmarks` and `demo`.
"""
