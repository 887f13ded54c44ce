"""Checkpoint formats: where the tensors of a file lie, and how to write a new file.

A format *locates*: it says which byte ranges of a file hold numbers and which tensors are views on them. Everything
else is kept verbatim, so a format that misses something loses nothing.
"""
