"""Update types: how the numbers of a chunk come from those of its previous version, exactly, on every machine."""
