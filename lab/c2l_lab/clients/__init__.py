"""Clients of the processes under measurement: an editor that speaks LSP, and the engine alone."""
