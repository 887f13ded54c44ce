"""Requests of a browser and the answers to them; ``static/messages.js`` is the other end.

Whatever comes from a browser is parsed before it is used. Arrays travel as float32 in binary buffers: in a result they
stand as ``{"array": N, "shape": [...]}``. An answer whose arrays are larger than a message may be is sent in parts.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from theta_nb.engine.merging.documents import read_json

__all__ = ["MAX_MESSAGE_NBYTES", "Answer", "Request", "deflated", "messages", "requests_of"]

MAX_MESSAGE_NBYTES = 1_000_000
_PART = 900_000  # what is not arrays has to fit in as well
_MOST_REQUESTS = 64
_LONGEST = 4096  # characters of a name
_LONGEST_FORM = 2_000_000  # characters of "form": JSON in which a view says more than names and numbers

Send = Callable[[dict[str, Any], list[bytes]], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What a browser asks for.

    Parameters
    ----------
    id
        Its number, to be repeated in the answer.
    channel
        What it replaces: the request before on the same channel.
    what
        Name of what is wanted.
    details
        Whatever else it says: texts and whole numbers.
    """

    id: str
    channel: str
    what: str
    details: Mapping[str, str | int] = field(default_factory=dict)

    def text(self, key: str) -> str:
        """A detail that is a text; empty if there is none."""
        found = self.details.get(key, "")
        return found if isinstance(found, str) else ""

    def form(self) -> Any:
        """The detail ``form``: plain data, sent as JSON.

        Raises
        ------
        ThetaError
            If it is none.
        """
        return read_json(self.text("form"), "what the view sent")

    def number(self, key: str) -> int:
        """A detail that is a whole number of at least 0; 0 if there is none."""
        found = self.details.get(key, 0)
        return max(0, found) if isinstance(found, int) else 0


@dataclass(slots=True)
class Answer:
    """What is sent back.

    Parameters
    ----------
    result
        JSON types.
    arrays
        The arrays that it refers to.
    """

    result: dict[str, Any] = field(default_factory=dict)
    arrays: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def array(self, values: npt.ArrayLike) -> dict[str, Any]:
        """Keep an array; what stands for it in the result."""
        kept = np.ascontiguousarray(values, np.float32)
        self.arrays.append(kept)
        return {"array": len(self.arrays) - 1, "shape": list(kept.shape)}


def requests_of(content: object) -> tuple[list[Request], list[str]]:
    """The requests in a message, and the channels that it cancels; what is malformed is left out.

    Examples
    --------
    >>> requests_of({"requests": [{"id": "a1", "channel": "one", "what": "picture", "name": "w", "row": 3}, 7]})
    ([Request(id='a1', channel='one', what='picture', details={'name': 'w', 'row': 3})], [])
    """
    if not isinstance(content, dict):
        return [], []
    found = []
    for item in _list(content.get("requests")):
        if not isinstance(item, dict):
            continue
        number, channel, what = (item.get(key) for key in ("id", "channel", "what"))
        if not (_is_name(number) and _is_name(channel) and _is_name(what)):
            continue
        details = {
            key: value
            for key, value in item.items()
            if isinstance(key, str)
            and key not in ("id", "channel", "what")
            and (_is_text(value, _LONGEST_FORM if key == "form" else _LONGEST) or _is_whole(value))
        }
        found.append(Request(str(number), str(channel), str(what), details))
    cancelled = [channel for channel in _list(content.get("cancel")) if isinstance(channel, str)]
    return found, cancelled


def _list(value: object) -> list[Any]:
    return value[:_MOST_REQUESTS] if isinstance(value, list) else []


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST


def _is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def messages(request: Request, answer: Answer) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """The messages of an answer: one, or as many as its arrays need."""
    whole = b"".join(array.tobytes() for array in answer.arrays)
    parts = max(1, math.ceil(len(whole) / _PART))
    for part in range(parts):
        content: dict[str, Any] = {"id": request.id, "part": part, "parts": parts}
        if part == parts - 1:
            content["result"] = answer.result
            content["sizes"] = [array.size for array in answer.arrays]
        yield content, [whole[part * _PART : (part + 1) * _PART]]


def deflated(form: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """JSON, compressed: names of parameters repeat themselves."""
    return zlib.compress(json.dumps(form, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace"), 6)
