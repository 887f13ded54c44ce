from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import pytest

from theta_nb.checkpoints import detection
from theta_nb.checkpoints.layout import Layout, Part
from theta_nb.errors import CheckpointError


class BytesSource:
    """A file in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, nbytes: int) -> bytes:
        if offset < 0 or nbytes < 0 or offset + nbytes > len(self.data):
            raise CheckpointError("outside the file")
        return self.data[offset : offset + nbytes]


def check_covers(layout: Layout, data: bytes) -> None:
    assert layout.size == len(data)
    position = 0
    for segment in layout.segments():
        _, _, offset, nbytes = segment
        assert offset == position
        assert nbytes > 0
        position += nbytes
    assert position == len(data)
    assert [s.offset for s in layout.storages] == sorted(s.offset for s in layout.storages)
    assert [f.offset for f in layout.derived] == sorted(f.offset for f in layout.derived)


@pytest.fixture
def source() -> Callable[[bytes], BytesSource]:
    return BytesSource


@pytest.fixture
def locate() -> Callable[..., Layout]:
    def locate_bytes(data: bytes, name: str = "model.pt") -> Layout:
        layout = detection.locate(BytesSource(data), name)
        check_covers(layout, data)
        return layout

    return locate_bytes


@pytest.fixture
def saved() -> Callable[..., bytes]:
    """What torch.save writes."""
    import torch

    def save(value: Any, **options: Any) -> bytes:
        file = io.BytesIO()
        torch.save(value, file, **options)
        return file.getvalue()

    return save


@pytest.fixture
def skeleton_of() -> Callable[[Layout, bytes], bytes]:
    def skeleton(layout: Layout, data: bytes) -> bytes:
        return b"".join(
            data[offset : offset + nbytes] for part, _, offset, nbytes in layout.segments() if part is Part.SKELETON
        )

    return skeleton


@pytest.fixture
def rebuild() -> Callable[[Layout, bytes], dict[str, Any]]:
    """Torch tensors made from nothing but the layout and the storages' bytes."""
    import torch

    def rebuilt(layout: Layout, data: bytes) -> dict[str, Any]:
        raw = [
            torch.frombuffer(bytearray(data[s.offset : s.offset + s.nbytes]) or bytearray(1), dtype=torch.uint8)
            for s in layout.storages
        ]
        tensors = {}
        for spec in layout.tensors:
            tensor = torch.empty(0, dtype=getattr(torch, spec.dtype.name))
            assert spec.offset % spec.dtype.itemsize == 0
            start = spec.offset // spec.dtype.itemsize
            tensor = tensor.set_(raw[spec.storage].untyped_storage(), start, spec.shape, spec.strides)
            tensor = tensor.conj() if spec.conj else tensor
            tensors[spec.name] = torch._neg_view(tensor) if spec.neg else tensor
        return tensors

    return rebuilt


@pytest.fixture
def same() -> Callable[[Any, Any], bool]:
    """Whether two torch tensors are the same view of the same bits."""
    import torch

    def bits(tensor: Any) -> bytes:
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()
        dense = torch.empty_strided(tensor.shape, torch.empty(tensor.shape).stride(), dtype=tensor.dtype)
        wide = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}
        kind = wide[tensor.element_size()]
        return bytes(dense.view(kind).copy_(tensor.view(kind)).reshape(-1).view(torch.uint8).numpy())

    def compare(one: Any, other: Any) -> bool:
        one, other = one.detach(), other.detach()
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.stride() == other.stride()
            and one.is_conj() == other.is_conj()
            and one.is_neg() == other.is_neg()
            and bits(one) == bits(other)
        )

    return compare


@pytest.fixture
def dice() -> random.Random:
    return random.Random(20230612)
