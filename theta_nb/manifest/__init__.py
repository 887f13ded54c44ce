"""The manifest: the text that git stores in place of a checkpoint."""
