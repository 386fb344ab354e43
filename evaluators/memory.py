"""Memory of a worker that lives through many trials."""

from __future__ import annotations

import atexit
import ctypes
import gc
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 2**30


def keep_memory() -> None:
    """From now on, let what one training step frees serve the next one; `release_memory` gives it back.

    By itself glibc would give large tensors back to the system at once and ask for them again: up to a tenth of the
    time of large networks on a CPU.
    """
    if sys.platform == "linux" and (option := getattr(ctypes.CDLL(None), "mallopt", None)):
        option(M_MMAP_THRESHOLD, KEPT_BYTES)
        option(M_TRIM_THRESHOLD, KEPT_BYTES)


def release_memory() -> None:
    """Give freed memory back to the system; glibc would keep for ever what the largest trial so far needed."""
    gc.collect()
    if not gc.get_freeze_count():
        # What the first trial imported lives as long as the process: the collector need not look at it again.
        gc.freeze()
        atexit.register(gc.unfreeze)  # libraries that look for what was left behind would find all of it
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # another training may be on the same GPU by now
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
        if trim:
            trim(0)
