"""The notebook side: magics, completion, and how results show themselves. Nothing here runs before ``%load_ext``."""
