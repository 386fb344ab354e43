"""Blocks that learn, each by itself, to do what a trained parent does at their place; and detectors made of them.

Ideas: DNA (arXiv:1911.13053), DONNA (arXiv:2012.08859), LANA (arXiv:2107.10624), Puzzle (arXiv:2411.19146).
"""
