"""What a merge was: inputs by digest, choices with all their parameters, and the numbers that were decided.

A recipe is plain data, the same text for the same merge. Whoever has it and the inputs gets the same result, bit for
bit where the method is exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import theta_nb
from theta_nb.engine.merging.choices import Choice, Override, Settings, compiled
from theta_nb.engine.merging.documents import read_json, read_yaml, write_yaml
from theta_nb.engine.merging.inputs import MergeInput
from theta_nb.engine.merging.recipe_schema import SCHEMA
from theta_nb.errors import MergeError

__all__ = [
    "SCHEMA",
    "Recipe",
    "Source",
    "complete_settings",
    "settings_json",
    "settings_of",
    "valid_settings",
    "validate",
]


@dataclass(frozen=True, slots=True)
class Source:
    """One input of a merge.

    Parameters
    ----------
    label
        Name in parameters.
    revision
        Where it came from.
    digest
        Identity of its tensors, in hexadecimal; empty where it is unknown.
    """

    label: str
    revision: str
    digest: str

    @classmethod
    def of(cls, source: MergeInput) -> Source:
        """What a recipe says of an input."""
        return cls(source.label, source.revision, source.digest)

    def json(self) -> dict[str, str]:
        """As plain data."""
        return {"label": self.label, "revision": self.revision, "digest": self.digest}


@dataclass(frozen=True)
class Recipe:
    """A merge as data.

    Parameters
    ----------
    base, inputs
        What was merged.
    settings
        What was chosen.
    decided
        Numbers that were decided, by parameter.
    version
        Of the package that made it.
    statistics
        Statistics of the training data, one for each input, where there were any.

    Examples
    --------
    >>> recipe = Recipe(None, (Source("ours", "main", ""),), Settings(Choice("linear", {"weight": 1.0})))
    >>> Recipe.parse(recipe.dump()) == recipe, recipe.short()
    (True, 'linear(weight=1)')
    """

    base: Source | None
    inputs: tuple[Source, ...]
    settings: Settings
    decided: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    version: str = theta_nb.__version__
    statistics: tuple[Source, ...] = ()

    @classmethod
    def of(
        cls,
        base: MergeInput | None,
        inputs: Sequence[MergeInput],
        settings: Settings,
        decided: Mapping[str, Mapping[str, tuple[float, ...]]],
        statistics: Sequence[MergeInput] = (),
    ) -> Recipe:
        """The recipe of a session, every parameter written out, so that no default can change it."""
        sources, known = (tuple(map(Source.of, each)) for each in (inputs, statistics))
        origin = None if base is None else Source.of(base)
        return cls(origin, sources, complete_settings(settings), decided, statistics=known)

    def json(self) -> dict[str, Any]:
        """As plain data, valid by :data:`SCHEMA`."""
        out: dict[str, Any] = {
            "theta-merge": 1,
            "version": self.version,
            "base": self.base and self.base.json(),
            "inputs": [source.json() for source in self.inputs],
            **settings_json(self.settings),
        }
        if self.statistics:
            out["statistics"] = [source.json() for source in self.statistics]
        if self.decided:
            out["decided"] = {
                name: {key: [number.hex() for number in numbers] for key, numbers in sorted(found.items())}
                for name, found in sorted(self.decided.items())
            }
        return out

    def dump(self) -> str:
        """As JSON, always the same for the same recipe."""
        return json.dumps(self.json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    def yaml(self) -> str:
        """As YAML, for people."""
        return write_yaml(self.json())

    def short(self) -> str:
        """One line for a commit message: methods and patterns, without inputs and decided numbers."""
        return str(self.settings)

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Read JSON or YAML.

        Raises
        ------
        MergeError
            If it is no recipe, or one of a newer release; the message says where it is wrong.
        """
        form = read_json(text, "the recipe") if text.lstrip()[:1] == "{" else read_yaml(text, "the recipe")
        if isinstance(form, dict) and form.get("theta-merge") not in (None, 1):
            raise MergeError(f"the recipe has form {form['theta-merge']!r}", hint="Update theta-nb to read it.")
        validate(form)
        settings = valid_settings(form)
        decided = {
            name: {key: tuple(map(float.fromhex, numbers)) for key, numbers in found.items()}
            for name, found in form.get("decided", {}).items()
        }
        base = form["base"] and Source(**form["base"])
        inputs, statistics = (tuple(Source(**one) for one in form.get(key, ())) for key in ("inputs", "statistics"))
        return cls(base, inputs, settings, decided, form["version"], statistics)

    def check(
        self, base: MergeInput | None, inputs: Sequence[MergeInput], statistics: Sequence[MergeInput] = ()
    ) -> None:
        """Refuse inputs, and statistics, that are not those of the recipe.

        Raises
        ------
        MergeError
            It names the first that differs.
        """
        given = (None if base is None else Source.of(base), *map(Source.of, inputs))
        wanted = (self.base, *self.inputs)
        if len(given) != len(wanted):
            raise MergeError(f"the recipe merges {len(wanted) - 1} checkpoints, and there are {len(given) - 1}")
        for have, want in zip(given, wanted, strict=True):
            if (have is None) != (want is None):
                raise MergeError("the recipe and this merge do not agree on whether there is a common ancestor")
            if have is None or want is None:
                continue
            if have.label != want.label or (want.digest and have.digest != want.digest):
                raise MergeError(
                    f"{want.label!r} of the recipe ({want.revision}) is not the {have.label!r} of this merge",
                    hint="Use the recipe's revisions, or apply its choices alone: session.apply(recipe, check=False).",
                )
        self._check_statistics([Source.of(source).digest for source in statistics])

    def _check_statistics(self, digests: Sequence[str]) -> None:
        wanted = [source.digest for source in self.statistics]
        choices = (self.settings.default, *(one.choice for one in self.settings.overrides))
        informed = any(choice is not None and choice.function.statistics for choice in choices)
        if digests == wanted or not informed:
            return
        names = ", ".join(source.revision for source in self.statistics) or "none"
        given = f"{len(digests)} others" if digests else "none"
        raise MergeError(
            f"the recipe was made with statistics of the training data ({names[:200]}), and {given} are given",
            hint="Give the same: repository.merge(…, statistics=[…]).",
        )


def settings_json(settings: Settings) -> dict[str, Any]:
    """Choices as plain data, the keys ``choice`` and ``overrides`` of a recipe."""
    default = settings.default
    return {"choice": default and default.json(), "overrides": [_plain(one) for one in settings.overrides]}


def settings_of(form: Any) -> Settings:
    """Choices from plain data, as :func:`settings_json` gives it.

    Raises
    ------
    MergeError
        If it is anything else.

    Examples
    --------
    >>> settings_of(settings_json(Settings(Choice("linear", {"weight": 2.0})))).default
    Choice(method='linear', parameters={'weight': 2.0})
    """
    if not isinstance(form, dict) or form.keys() != {"choice", "overrides"}:
        raise MergeError("choices have a choice for everything, and overrides")
    validate({**Recipe(None, (Source("ours", "", ""),), Settings()).json(), **form})
    return valid_settings(form)


def valid_settings(form: Mapping[str, Any]) -> Settings:
    """Choices from plain data that fits the schema."""
    overrides = tuple(map(_override, form["overrides"]))
    settings = Settings(form["choice"] and Choice(**form["choice"]), overrides)
    for choice in (settings.default, *(one.choice for one in overrides)):
        if choice is None:
            continue
        function = choice.function
        for name in choice.parameters:
            function.parameter(name)
    for one in overrides:
        compiled(one.pattern, one.regex)
    return settings


def _plain(override: Override) -> dict[str, Any]:
    about = {"regex" if override.regex else "glob": override.pattern}
    return {**about, **({"contested": True} if override.contested else {}), **override.choice.json()}


def _override(form: Mapping[str, Any]) -> Override:
    choice = Choice(form["method"], form["parameters"])
    return Override(form.get("regex", form.get("glob")), choice, "regex" in form, "contested" in form)


def complete(choice: Choice) -> Choice:
    """A choice with all defaults written out."""
    return Choice(
        choice.function.name,
        {spec.name: choice.parameters.get(spec.name, spec.default) for spec in choice.function.parameters},
    )


def complete_settings(settings: Settings) -> Settings:
    """Choices with all defaults written out."""
    default = settings.default and complete(settings.default)
    return Settings(default, tuple(replace(one, choice=complete(one.choice)) for one in settings.overrides))


def validate(form: Any, schema: Mapping[str, Any] = SCHEMA, what: str = "the recipe") -> None:
    """Check plain data against a JSON Schema.

    Raises
    ------
    MergeError
        If it does not fit; the message says where and why.
    """
    import jsonschema

    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(form))
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "its top"
        raise MergeError(f"{what} is wrong at {place[:200]}: {error.message[:200]}")
