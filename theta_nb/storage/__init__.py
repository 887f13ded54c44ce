"""Encoded chunks as content-addressed objects, in the directory layout of Git LFS."""
