"""Blocks that the models are made of."""
