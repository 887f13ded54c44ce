"""A checkpoint as a lazy mapping from names to tensors, read from a file or from objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from fnmatch import translate
from typing import TYPE_CHECKING, Any

from theta_nb.checkpoints.layout import Layout
from theta_nb.checkpoints.naming import parse as parse_name
from theta_nb.engine.rebuild import Decoder, read_layout
from theta_nb.engine.storages import FETCH, Bring, ObjectStorages, StorageReader
from theta_nb.errors import CheckpointError, MissingObjectError, ThetaError
from theta_nb.manifest.model import Manifest
from theta_nb.storage.objects import ObjectStore
from theta_nb.tensors.spec import Shape, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["Checkpoint", "TensorView", "matching"]


class TensorView:
    """One tensor of a checkpoint; its values are read when they are asked for.

    Parameters
    ----------
    spec
        Name, dtype and view.
    reader
        Where its storage is read.

    Attributes
    ----------
    name, dtype, shape
        As in the checkpoint; ``dtype`` is the canonical name.
    """

    def __init__(self, spec: TensorSpec, reader: StorageReader) -> None:
        self._spec = spec
        self._reader = reader

    @property
    def name(self) -> str:
        """Parameter name."""
        return self._spec.name

    @property
    def dtype(self) -> str:
        """Canonical dtype name (``"bfloat16"``)."""
        return self._spec.dtype.name

    @property
    def shape(self) -> Shape:
        """Size of each dimension."""
        return self._spec.shape

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's elements."""
        return self._spec.dtype.nbytes(self._spec.numel)

    def numpy(self) -> np.ndarray[Any, np.dtype[Any]]:
        """The values as a NumPy array of their own (``ml_dtypes`` types for bfloat16 and 8-bit floats).

        Raises
        ------
        CheckpointError
            If NumPy has no such dtype.
        """
        import numpy as np

        spec = self._spec
        dtype = spec.dtype.to_numpy()
        if not spec.numel:
            return np.empty(spec.shape, dtype)
        data = self._reader.read(spec.storage)
        # Sliced only where it must be, as that copies: what is read from an odd place would be slow, or refused.
        offset = spec.offset
        if offset % dtype.alignment:
            data, offset = data[offset:], 0
        steps = tuple(step * dtype.itemsize for step in spec.strides)
        # Not as_strided: it goes through the array interface, which has no word for 8-bit floats.
        array: np.ndarray[Any, np.dtype[Any]] = np.ndarray(spec.shape, dtype, data, offset, steps)
        if spec.conj:
            array = array.conj()
        return -array if spec.neg else array

    def torch(self) -> torch.Tensor:
        """The values as a torch tensor of its own."""
        return torch_tensor(self._spec, torch_storage(self._reader.read(self._spec.storage)))

    def __repr__(self) -> str:
        return f"TensorView({self.name!r}, {self.dtype}, {list(self.shape)})"


class Checkpoint(Mapping[str, TensorView]):
    """A lazy mapping from parameter names to :class:`TensorView`.

    Parameters
    ----------
    layout
        What the file holds.
    reader
        Where its storages are read.
    description
        What it is, for ``repr`` (path and revision).
    """

    def __init__(self, layout: Layout, reader: StorageReader, description: str = "") -> None:
        self._layout = layout
        self._reader = reader
        self._description = description
        self._specs = {tensor.name: tensor for tensor in layout.tensors}

    @classmethod
    def from_manifest(
        cls,
        manifest: Manifest,
        store: ObjectStore,
        executor: Executor,
        description: str = "",
        bring: Bring | None = None,
    ) -> Checkpoint:
        """The checkpoint of a manifest, its objects in ``store``; ``bring`` fetches those that are not."""
        name = description or "the checkpoint"
        if bring is not None:
            try:
                bring({oid: manifest.objects[oid] for oid in manifest.values[manifest.layout].oids})
            except MissingObjectError as error:
                raise MissingObjectError(
                    f"the layout of {name}: {error.message}", oids=error.oids, hint=error.hint
                ) from error
        try:
            layout = read_layout(manifest, Decoder(store))
        except MissingObjectError as error:
            raise MissingObjectError(
                f"{name}: the object that holds its layout is not here", oids=error.oids, hint=FETCH
            ) from error
        return cls(layout, ObjectStorages(manifest, layout, store, executor, bring), description)

    @property
    def format(self) -> str:
        """Name of the file format."""
        return self._layout.format

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return self._layout.size

    def __getitem__(self, name: str) -> TensorView:
        return TensorView(self._specs[name], self._reader)

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __repr__(self) -> str:
        return f"<Checkpoint {self._description}: {self.format}, {len(self)} tensors, {self.size / 1e6:.1f} MB>"

    def state_dict(self, pattern: str | re.Pattern[str] | None = None) -> dict[str, torch.Tensor]:
        """Torch tensors by key; tied tensors share their memory as they do in the file.

        Parameters
        ----------
        pattern
            Glob (``"encoder.*"``) or compiled regular expression that selects names; all by default. Storages that no
            selected tensor needs are not read.

        Returns
        -------
        dict
            Keys are those of a flat state dict; tensors of nested containers keep the spelled path
            (``optimizer/state/[0]/exp_avg``).

        Raises
        ------
        ThetaError
            If the pattern selects nothing.
        """
        names = matching(self._specs, pattern)
        if pattern is not None and not names:
            raise ThetaError(
                f"no parameter of {self._description or 'the checkpoint'} matches {_text(pattern)!r}",
                hint="Patterns are globs over whole names; list(checkpoint) shows them.",
            )
        self._reader.prepare(dict.fromkeys(self._specs[name].storage for name in names))
        storages: dict[int, torch.UntypedStorage] = {}
        out: dict[str, torch.Tensor] = {}
        for name in names:
            spec = self._specs[name]
            if spec.storage not in storages:
                storages[spec.storage] = torch_storage(self._reader.read(spec.storage))
            out[_key(name)] = torch_tensor(spec, storages[spec.storage])
        return out


def matching(names: Iterable[str], pattern: str | re.Pattern[str] | None) -> list[str]:
    """Names that a glob or a compiled regular expression matches whole, in their order.

    Examples
    --------
    >>> matching(["encoder.0.weight", "head.bias"], "encoder.*")
    ['encoder.0.weight']
    """
    if pattern is None:
        return list(names)
    expression = re.compile(translate(pattern)) if isinstance(pattern, str) else pattern
    return [name for name in names if expression.fullmatch(name)]


def _text(pattern: str | re.Pattern[str]) -> str:
    return pattern if isinstance(pattern, str) else pattern.pattern


def _key(name: str) -> str:
    path = parse_name(name)
    return path[0] if len(path) == 1 and isinstance(path[0], str) else name


def torch_storage(data: bytearray) -> torch.UntypedStorage:
    """A torch storage on the memory of ``data``, without copying; tensors on one storage are tied, also for torch."""
    import torch

    base = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    return base.untyped_storage()


def torch_tensor(spec: TensorSpec, storage: torch.UntypedStorage) -> torch.Tensor:
    """A torch tensor on ``storage``.

    Raises
    ------
    CheckpointError
        If this torch has no such dtype.
    """
    import torch

    dtype = getattr(torch, spec.dtype.name, None)
    if dtype is None or spec.dtype.kind == "q" or spec.dtype.bits % 8:
        raise CheckpointError(
            f"parameter {spec.name!r}: torch has no plain dtype {spec.dtype.name}",
            hint="Check the file out and load it with the library that wrote it.",
        )
    if not spec.numel:
        return torch.empty(spec.shape, dtype=dtype)
    step, rest = divmod(spec.offset, spec.dtype.itemsize)
    if rest:  # torch counts in elements, so what stands between them has to be moved
        moved = torch.empty(0, dtype=torch.uint8).set_(storage)[spec.offset :].clone()
        storage, step = moved.untyped_storage(), 0
    tensor = torch.empty(0, dtype=dtype).set_(storage, step, spec.shape, spec.strides)
    if spec.conj:
        tensor = tensor.conj()
    return torch._neg_view(tensor) if spec.neg else tensor
