"""JSON and YAML from outside, as plain data: no duplicate keys, no aliases, no types of Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from theta_nb.errors import MergeError

__all__ = ["MAX_NBYTES", "read_json", "read_yaml", "write_yaml"]

MAX_NBYTES = 64 * 2**20


def read_json(text: str, what: str) -> Any:
    """Parse JSON.

    Parameters
    ----------
    text
        The document.
    what
        Its name, for messages.

    Raises
    ------
    MergeError
        If it is none, too long, nested too deeply, or names a key twice.

    Examples
    --------
    >>> read_json('{"a": 1, "a": 2}', "the recipe")
    Traceback (most recent call last):
    theta_nb.errors.MergeError: the recipe cannot be read: 'a' is there twice
    """
    _check_length(text, what)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in pairs:
            if key in out:
                raise ValueError(f"{key!r} is there twice")
            out[key] = value
        return out

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no number of JSON")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise MergeError(f"{what} cannot be read: {str(error)[:200]}") from None


def read_yaml(text: str, what: str) -> Any:
    """Parse YAML: the part of it that is plain data.

    Raises
    ------
    MergeError
        As :func:`read_json`, and if it uses aliases, which can make a short document very large.

    Examples
    --------
    >>> read_yaml("a: [1, 2.5]", "the recipe")
    {'a': [1, 2.5]}
    """
    import yaml

    _check_length(text, what)

    class Plain(yaml.SafeLoader):  # type: ignore[misc]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                raise yaml.YAMLError("aliases are not allowed")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key in seen:
                if not isinstance(key, str | int | float) or seen.count(key) > 1:
                    raise yaml.YAMLError(f"{key!r} is there twice, or no key")
            made: dict[Any, Any] = super().construct_mapping(node, deep)
            return made

    try:
        return yaml.load(text, Plain)  # noqa: S506, a subclass of the safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split())
        raise MergeError(f"{what} cannot be read: {words[:200]}") from None


def write_yaml(form: Mapping[str, Any]) -> str:
    """Plain data as YAML, keys in their order, lists of numbers on one line."""
    import yaml

    class Plain(yaml.SafeDumper):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True  # readers refuse them

    made: str = yaml.dump(
        dict(form), Dumper=Plain, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100
    )
    return made


def _check_length(text: str, what: str) -> None:
    if len(text) > MAX_NBYTES:
        raise MergeError(f"{what} is too long ({len(text)} characters)")
