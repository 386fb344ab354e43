"""One file per runtime, loaded by the probe in a fresh process: `load(model, threads)` and `identity()`.

A runtime file imports nothing of this project.
"""
