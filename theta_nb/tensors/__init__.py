"""Dtypes, tensor specifications and digests: what a tensor is, before any file format."""
