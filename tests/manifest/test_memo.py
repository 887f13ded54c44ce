"""Parsing with a memory of other manifests gives what parsing without it gives, whatever was seen before."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.engine.filters import clean
from tests.git.checkpoints import bias, model, pytorch, tensors
from theta_nb.errors import ManifestError
from theta_nb.manifest.memo import Memo
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import dump, parse
from theta_nb.storage.objects import MemoryStore


def texts() -> list[bytes]:
    """Versions of one checkpoint, from one store."""
    store = MemoryStore()
    files = [model(), model(layer_0_bias=bias(1.0)), model(layer_0_bias=bias(2.0)), model(1), model()]
    import torch

    state = {name: torch.from_numpy(value) for name, value in tensors().items()}
    state["tied"] = state["embed.weight"][:3]
    files.append(pytorch(state))
    return [dump(clean(data, store)) for data in files]


TEXTS = texts()


def outcome(text: bytes, memo: Memo | None) -> Manifest | str:
    """What parsing gives: a manifest, or a message."""
    try:
        return parse(text, memo=memo)
    except ManifestError as error:
        return str(error)


def test_versions_of_a_checkpoint_are_the_same_and_share_what_they_have_in_common() -> None:
    memo = Memo()
    found = [parse(text, memo=memo) for text in TEXTS]
    assert found == [parse(text) for text in TEXTS]
    first, last = found[0], found[4]
    assert all(first.entries[name] is last.entries[name] for name in first.entries)
    assert all(first.values[digest] is last.values[digest] for digest in first.values)


def _other_digit(text: bytes, position: int) -> bytes:
    """The text with one character replaced by another digit."""
    return text[:position] + (b"1" if text[position : position + 1] != b"1" else b"2") + text[position + 1 :]


LIES = {
    "an object is shorter": lambda t: re.sub(rb"^(object \w+) \d+$", rb"\1 7", t, flags=re.MULTILINE),
    "objects are not listed": lambda t: re.sub(rb"^object .*\n", b"", t, flags=re.MULTILINE),
    "objects have other names": lambda t: re.sub(
        rb"^object (\w+)", lambda m: b"object " + m[1][:-1] + b"0", t, flags=re.MULTILINE
    ),
    "two objects begin alike": lambda t: re.sub(
        rb"^(object \w+)(\w) (\d+)\n", rb"\1\2 \3\n\g<1>0 \3\n\g<1>1 \3\n", t, count=1, flags=re.MULTILINE
    ),
    "a value is missing": lambda t: re.sub(rb"^value .*\n", b"", t, count=1, flags=re.MULTILINE),
    "a row is of another shape": lambda t: t.replace(b"[16,16]", b"[16,15]"),
    "rows exchanged their digests": lambda t: re.sub(
        rb"(layer\.0\.bias\t[^\t]*\t[^\t]*\t)(\w+)(.*\n.*?\t.*?\t.*?\t)(\w+)", rb"\1\4\3\2", t
    ),
    "conflict markers": lambda t: t.replace(b"\n\n", b"\n\n<<<<<<< ours\n", 1),
    "CRLF": lambda t: t.replace(b"\n", b"\r\n"),
    "cut short": lambda t: t[: len(t) // 2],
    "not a manifest": lambda _: b"theta-manifest 9\n",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest.mark.parametrize("text", TEXTS[:2] + TEXTS[-1:], ids=["one", "two", "pytorch"])
def test_a_lie_is_found_as_without_a_memory(text: bytes, lie: object) -> None:
    memo = Memo()
    for seen in TEXTS:
        parse(seen, memo=memo)
    changed = lie(text)  # type: ignore[operator]
    assert changed != text, "the lie is told"
    wanted = outcome(changed, None)
    assert outcome(changed, memo) == wanted
    assert outcome(changed, memo) == wanted, "also the second time"
    assert [outcome(seen, memo) for seen in TEXTS] == [outcome(seen, None) for seen in TEXTS], "and nothing is spoilt"


@example([(TEXTS[0], [268, 1639])])  # two faults: the same one is named
@given(st.lists(st.tuples(st.sampled_from(TEXTS), st.lists(st.integers(0, 10_000), max_size=3)), max_size=6))
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_damaged_manifests(sequence: list[tuple[bytes, list[int]]]) -> None:
    memo = Memo()
    for text, positions in sequence:
        for position in positions:
            text = _other_digit(text, position % len(text))
        assert outcome(text, memo) == outcome(text, None)
