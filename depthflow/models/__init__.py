"""Thin torch adapters: where a model keeps its blocks, and which token is which."""
