"""The form of a recipe, as a JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["SCHEMA"]

_TEXT = {"type": "string", "maxLength": 4096}
_SCALAR = {"type": ["number", "string", "boolean"], "maxLength": 100}
_GRADIENT = {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "minItems": 1, "maxItems": 10_000}]}
_CHOICE = {
    "method": _TEXT,
    "parameters": {
        "type": "object",
        "additionalProperties": {"anyOf": [_GRADIENT, {"type": "object", "additionalProperties": _GRADIENT}]},
    },
}
_SOURCE = {
    "type": "object",
    "properties": {"label": _TEXT, "revision": _TEXT, "digest": {"type": "string", "pattern": "^([0-9a-f]{64})?$"}},
    "required": ["label", "revision", "digest"],
    "additionalProperties": False,
}

SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://theta-nb.readthedocs.io/schemas/merge-recipe-1.json",
    "title": "Recipe of a merge of checkpoints",
    "type": "object",
    "properties": {
        "theta-merge": {"const": 1, "description": "version of this form"},
        "version": {**_TEXT, "description": "version of theta-nb that made it"},
        "base": {"anyOf": [_SOURCE, {"type": "null"}], "description": "the common ancestor"},
        "inputs": {"type": "array", "items": _SOURCE, "minItems": 1, "maxItems": 1000},
        "statistics": {
            "type": "array",
            "description": "checkpoints with statistics of the training data, one for each input",
            "items": _SOURCE,
            "minItems": 1,
            "maxItems": 1000,
        },
        "choice": {
            "anyOf": [
                {"type": "object", "properties": _CHOICE, "required": list(_CHOICE), "additionalProperties": False},
                {"type": "null"},
            ],
            "description": "for what both sides changed",
        },
        "overrides": {
            "type": "array",
            "description": "for what a pattern names, or for what both sides changed of it; the last one counts",
            "items": {
                "type": "object",
                "properties": {"glob": _TEXT, "regex": _TEXT, "contested": {"const": True}, **_CHOICE},
                "required": list(_CHOICE),
                "oneOf": [{"required": ["glob"]}, {"required": ["regex"]}],
                "additionalProperties": False,
            },
        },
        "decided": {
            "type": "object",
            "description": "numbers that follow from sums over a parameter, as hexadecimal floats",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": {
                    "type": "array",
                    "items": {"type": "string", "pattern": "^(-?0x[01]\\.[0-9a-f]+p[+-][0-9]+|-?inf|nan)$"},
                },
            },
        },
    },
    "required": ["theta-merge", "version", "base", "inputs", "choice", "overrides"],
    "additionalProperties": False,
}
"""JSON Schema of a recipe."""
