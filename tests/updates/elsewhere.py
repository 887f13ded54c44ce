"""Another machine: applies the steps of a folder and prints what comes out; a program, run with other settings.

Usage: ``python elsewhere.py FOLDER WORKERS``. A step N is three files: ``N.old``, ``N.payload``, ``N.json`` with its
update type, dtype and columns.
"""

from __future__ import annotations

import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy._core import _multiarray_umath as umath

from theta_nb.tensors.dtypes import dtype_named
from theta_nb.updates.table import UPDATES, Numbers


def outcome(path: Path) -> list[str]:
    """Digest of the new version, and of the payload of the types whose encoder is integer arithmetic."""
    facts = json.loads(path.read_text())
    old, payload = path.with_suffix(".old").read_bytes(), path.with_suffix(".payload").read_bytes()
    update = UPDATES[facts["update"]]
    new = bytearray(old)
    update.apply(memoryview(payload), memoryview(new))
    found = [path.stem, hashlib.sha256(new).hexdigest()]
    if facts["update"] in ("dense", "delta", "sparse"):
        numbers = Numbers(dtype_named(facts["dtype"]), facts["columns"])
        again = update.encode(memoryview(old), memoryview(bytes(new)), numbers)
        found.append(hashlib.sha256(again or b"").hexdigest())
    return found


def main() -> None:
    """Print outcomes, and which instructions NumPy may use."""
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    with ThreadPoolExecutor(workers) as executor:
        outcomes = list(executor.map(outcome, sorted(folder.glob("*.json"))))
    used = sorted(name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name])
    print(json.dumps({"outcomes": outcomes, "numpy": np.__version__, "features": used}))


if __name__ == "__main__":
    main()
