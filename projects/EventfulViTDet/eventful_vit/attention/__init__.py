"""Attention of eventful blocks: how tokens are laid out, positions, and how much of it a frame recomputes."""
