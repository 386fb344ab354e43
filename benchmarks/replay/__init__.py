"""Searches replayed on tables of architectures that were all trained: the engine and its peers, at the same cost."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # each replay has a core of its own; read when numpy and torch are loaded
