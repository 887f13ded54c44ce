"""Merging checkpoints: what changed where, what becomes of it, and the session in which that is tried out."""
