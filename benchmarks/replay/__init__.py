"""Searches replayed on tables of architectures that were all trained: the engine and its peers, at the same cost."""
