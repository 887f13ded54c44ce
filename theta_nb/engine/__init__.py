"""What is done to checkpoints: clean, smudge, compare. Knows stores and manifests, never git."""
