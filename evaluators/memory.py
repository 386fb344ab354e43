"""Memory of a worker that lives through many trials."""

from __future__ import annotations

import ctypes
import gc
import sys


def release_memory() -> None:
    """Give freed memory back to the system; glibc would keep for ever what the largest trial so far needed."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # another training may be on the same GPU by now
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
        if trim:
            trim(0)
