"""Golden values of the exact methods: digests that every machine must give.

``python -m tests.merges.golden`` writes them anew; a change of them is a change of what recipes mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from theta_nb.merges.group import Group
from theta_nb.merges.table import METHODS, method_named
from theta_nb.merges.tensors import merge_group

PATH = Path(__file__).parent.parent / "golden" / "merges.json"
NAMES = sorted(name for name in METHODS.names() if METHODS[name].exact)


def tensors() -> list[np.ndarray]:
    """A base and two inputs, by integer arithmetic: no generator or library function that could change."""
    steps = np.arange(40_000, dtype=np.int64)
    base = (steps * 7919 % 4099 - 2049).astype(np.float32) / np.float32(1024)
    moved = [(steps * prime % 2053 - 1026).astype(np.float32) / np.float32(8192) for prime in (6007, 104_729)]
    return [x.reshape(200, 200) for x in (base, base + moved[0], base + moved[1])]


def merged(name: str, decided: dict[str, tuple[float, ...]]) -> bytes:
    """Bytes of the result of a method, with the numbers that were decided."""
    base, *inputs = tensors()
    group = Group.of(inputs, base, name="layers.0.weight")
    group.decided = decided
    method = method_named(name)
    return merge_group(method, group, method.bind(parameters(name), ["a", "b"]), np.dtype("float32")).tobytes()


def parameters(name: str) -> dict[str, Any]:
    """Parameters that make a method do something."""
    known = {spec.name for spec in METHODS[name].parameters}
    wanted = {"density": 0.3, "weight": [0.7, 0.6], "scale": 0.9, "t": 0.3}
    return {key: value for key, value in wanted.items() if key in known}


def main() -> None:
    """Write the file."""
    out = {}
    for name in NAMES:
        decided: dict[str, tuple[float, ...]] = {}
        digest = blake3(merged(name, decided)).hexdigest()
        out[name] = {"digest": digest, "decided": {key: [n.hex() for n in found] for key, found in decided.items()}}
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(out, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
