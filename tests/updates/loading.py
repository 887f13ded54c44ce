"""Side-load updates without git: a checkpoint in a store in memory, an update, the file that comes out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theta_nb.engine.clean import Cleaner
from theta_nb.engine.known import KnownChunks
from theta_nb.engine.rebuild import Rebuilder
from theta_nb.engine.side_load import apply_update, plan_update
from theta_nb.engine.update_files import UpdateData, read_update
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import dump, parse
from theta_nb.storage.objects import MemoryStore


@dataclass
class Loaded:
    """The version before and after, and the file after."""

    before: Manifest
    after: Manifest
    file: Path
    shared: tuple[str, ...]
    store: MemoryStore

    def tensors(self) -> dict[str, Any]:
        """The new file as torch or safetensors read it."""
        import torch
        from safetensors.torch import load_file

        if self.file.suffix == ".safetensors":
            return load_file(self.file)
        found: dict[str, Any] = torch.load(self.file, weights_only=True)
        return found

    def updates(self) -> dict[str, str]:
        """How the parameters that changed are stored, by name."""
        return {
            name: self.after.value_of(name).update
            for name, entry in self.after.entries.items()
            if entry.digest != self.before.entries[name].digest
        }


def side_load(
    folder: Path, name: str, content: bytes, data: UpdateData, update: str = "", *, workers: int = 2
) -> Loaded:
    """Apply an update to a file; what comes out is checked in every way that needs no knowledge of the update."""
    store = MemoryStore()
    old, new = folder / name, folder / f"new-{name}"
    old.write_bytes(content)
    with ThreadPoolExecutor(workers) as executor:
        before = cleaned(store, executor, old)
        plan = plan_update(read_update(data, update), before, store)
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            after = apply_update(plan, store, executor, fd)
        finally:
            os.close(fd)
        assert parse(dump(after)) == after, "the manifest is not what its text says"
        rebuilt = bytearray()
        Rebuilder(after, store, executor).stream(rebuilt.extend)
        assert rebuilt == new.read_bytes(), "the file is not what its manifest gives"
        assert cleaned(store, executor, new).same_content(after), "the manifest is not that of the file"
    return Loaded(before, after, new, plan.shared, store)


def cleaned(store: MemoryStore, executor: ThreadPoolExecutor, path: Path) -> Manifest:
    """Manifest of a file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return Cleaner(store, executor).file(fd, path.name, KnownChunks())[0]
    finally:
        os.close(fd)


def save_adapter(folder: Path, config: Mapping[str, Any], arrays: Mapping[str, Any]) -> Path:
    """A folder as PEFT's ``save_pretrained`` makes it, from its parts."""
    import json

    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(
        {f"base_model.model.{key}": value.contiguous() for key, value in arrays.items()},
        folder / "adapter_model.safetensors",
    )
    return folder
