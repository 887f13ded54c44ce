"""The panel of tries on the side of Python: the numbered history of evaluations, compared, restored, exported."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from theta_nb.engine.merging.choices import Choice, Settings
from theta_nb.engine.merging.mergekit_export import export_mergekit
from theta_nb.engine.merging.recipe import Recipe, complete_settings, settings_json
from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.tries import Try
from theta_nb.errors import MergeError, ThetaError
from theta_nb.jupyter.answers import Answer, Request
from theta_nb.jupyter.evaluation_desk import numbers
from theta_nb.jupyter.worker import Stop

if TYPE_CHECKING:
    from theta_nb.jupyter.merge_explorer import MergeExplorer

__all__ = ["TriesDesk", "compared", "exported", "python_of"]

Progress = Callable[[int, int], None]

_SHOWN = 500
"""Tries that are sent to a view: the pinned ones and the latest."""


class TriesDesk:
    """Answers for the panel of tries.

    Requests: ``note`` and ``pin`` with the ``number`` of a try, ``restore`` likewise; ``compare`` with two, ``number``
    and ``other``; ``export`` with ``kind`` (``python``, ``yaml``, ``mergekit``) and ``number``, 0 for what is chosen.

    Parameters
    ----------
    explorer
        Whose panel it is.
    """

    def __init__(self, explorer: MergeExplorer) -> None:
        self._explorer = explorer
        self._session: MergeSession = explorer.session
        self._unwatch = self._session.tries.watch(
            lambda: explorer.soon("tries", lambda stop: explorer.refresh("tries"))
        )

    def state(self) -> dict[str, Any]:
        """What ``static/tries_panel.js`` draws."""
        tries = tuple(self._session.tries)
        kept = [one for one in tries[:-_SHOWN] if one.pinned] + list(tries[-_SHOWN:])
        return {
            "tries": [_shown(one) for one in kept],
            "metrics": list(dict.fromkeys(name for one in kept for name in one.metrics)),
            "left_out": len(tries) - len(kept),
        }

    def answer(self, request: Request, stop: Stop, progress: Progress) -> Answer:
        """Answer a request of the panel."""
        session, number = self._session, request.number("number")
        if request.what == "note":
            session.tries.annotate(number, note=request.text("note"))
        elif request.what == "pin":
            session.tries.annotate(number, pinned=bool(request.number("pinned")))
        elif request.what == "restore":
            with self._explorer.lock:
                session.restore(session.tries.number(number).settings)
            self._explorer.fill()
        elif request.what == "compare":
            one, other = session.tries.number(number), session.tries.number(request.number("other"))
            return Answer(compared(session, one, other))
        elif request.what == "export":
            settings = session.tries.number(number).settings if number else session.settings
            return Answer({"text": exported(session, settings, request.text("kind"))})
        else:
            raise ThetaError(f"the panel of tries cannot ask for {request.what!r}")
        return Answer()

    def close(self) -> None:
        """Listen no more."""
        self._unwatch()


def _shown(one: Try) -> dict[str, Any]:
    complete = complete_settings(one.settings)
    return {
        "number": one.number,
        "short": briefly(one.settings),
        "full": Recipe(None, (), complete).short(),
        "settings": settings_json(complete),
        "metrics": numbers(one.metrics),
        "seconds": round(one.seconds, 3),
        "note": one.note,
        "pinned": one.pinned,
    }


def briefly(settings: Settings) -> str:
    """A recipe in a line, without the parameters that have their defaults.

    Examples
    --------
    >>> briefly(Settings(Choice("ties", {"density": 0.3, "normalize": True})))
    'ties(density=0.3)'
    """

    def brief(choice: Choice) -> Choice:
        default = {spec.name: spec.default for spec in choice.function.parameters}
        return Choice(choice.method, {k: v for k, v in choice.parameters.items() if default.get(k) != v})

    overrides = tuple(replace(one, choice=brief(one.choice)) for one in settings.overrides)
    text = Recipe(None, (), Settings(settings.default and brief(settings.default), overrides)).short()
    return text.replace("()", "")


# --- two tries side by side -------------------------------------------------------------------------------------------


def compared(session: MergeSession, one: Try, other: Try) -> dict[str, Any]:
    """What differs between two tries: metrics, choices, and how many parameters of the model.

    Returns
    -------
    dict
        ``metrics`` and ``choices``: rows of a name and two values; ``parameters``: how many come out otherwise;
        ``names``: some of them.
    """
    metrics = [
        [name, *(numbers(one.metrics).get(name), numbers(other.metrics).get(name))]
        for name in dict.fromkeys([*one.metrics, *other.metrics])
    ]
    left, right = _flat(one.settings), _flat(other.settings)
    choices = [
        [name, left.get(name, ""), right.get(name, "")]
        for name in dict.fromkeys([*left, *right])
        if left.get(name) != right.get(name)
    ]
    made = [session.fork().restore(each.settings) for each in (one, other)]
    differing = [
        name
        for name, decision in made[0].decisions.items()
        if decision.fingerprint(session.depths[name]) != made[1].decisions[name].fingerprint(session.depths[name])
    ]
    return {
        "numbers": [one.number, other.number],
        "metrics": metrics,
        "choices": choices,
        "parameters": len(differing),
        "names": differing[:20],
    }


def _flat(settings: Settings) -> dict[str, str]:
    """Everything that is chosen, as texts by name."""
    recipe = complete_settings(settings)
    out: dict[str, str] = {}
    parts = [("", recipe.default), *((f"{one.pattern}: ", one.choice) for one in recipe.overrides)]
    for before, choice in parts:
        if choice is None:
            continue
        out[f"{before}method"] = choice.method
        out |= {f"{before}{name}": _text(value) for name, value in choice.json()["parameters"].items()}
    return out


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- exports ----------------------------------------------------------------------------------------------------------


def exported(session: MergeSession, settings: Settings, kind: str) -> str:
    """Choices as a text that others can use.

    Parameters
    ----------
    session
        Whose inputs are named.
    settings
        What is exported.
    kind
        ``"python"`` (calls of the session), ``"yaml"`` (the recipe), ``"mergekit"`` (a configuration of mergekit).

    Raises
    ------
    MergeError
        If there is no such kind, or mergekit cannot do it.
    """
    if kind == "python":
        return python_of(session, settings)
    if kind == "yaml":
        fork = session.fork().restore(settings)
        return fork.recipe().yaml()
    if kind == "mergekit":
        models = [source.revision or source.label for source in session.inputs]
        base = "" if session.base is None else session.base.revision or session.base.label
        return export_mergekit(settings, models, base, labels=session.labels)
    raise MergeError(f"there is no export called {kind[:40]!r}", hint="There are python, yaml and mergekit.")


def python_of(session: MergeSession, settings: Settings) -> str:
    """Code that chooses the same.

    Examples
    --------
    >>> import numpy as np
    >>> from theta_nb.engine.merging.inputs import StateInput
    >>> session = MergeSession(None, [StateInput(k, {"w": np.ones(2)}) for k in ("ours", "theirs")])
    >>> print(python_of(session, session.use("slerp", t=0.25).settings))
    session.use("slerp", t=0.25)
    """
    opening = _opening(session)
    lines = [f"session = {opening}"] if opening else []
    if any(one.contested for one in settings.overrides):  # what a slider of a block does has no call of its own
        recipe = session.fork().restore(settings).recipe().yaml()
        text = f'"""\n{recipe}"""' if '"""' not in recipe and "\\" not in recipe else repr(recipe)
        lines += ["from theta_nb.engine.merging.recipe import Recipe", "", f"recipe = Recipe.parse({text})"]
        return "\n".join([*(["import theta_nb\n"] if opening else []), *lines, "session.apply(recipe)"])
    if settings.default is not None:
        lines.append(f"session.use({_call(settings.default)})")
    for one in settings.overrides:
        pattern = f"re.compile({one.pattern!r})" if one.regex else _quoted(one.pattern)
        lines.append(f"session.override({pattern}, {_call(one.choice)})")
    if any(one.regex for one in settings.overrides):
        lines.insert(0, "import re\n")
    if opening:
        lines.insert(0, "import theta_nb\n")
    return "\n".join(lines)


def _opening(session: MergeSession) -> str:
    """The call that opens the same merge; empty where the session is not one of a repository."""
    from theta_nb.git.merge_commit import MergeCommitter

    try:
        committer = session.committer
    except MergeError:
        return ""
    if not isinstance(committer, MergeCommitter):
        return ""
    words = ", ".join(map(_quoted, (committer.path, *committer.plan.words)))
    return f'theta_nb.Repository(".").merge({words})'


def _call(choice: Choice) -> str:
    values = (f"{name}={_literal(value)}" for name, value in choice.json()["parameters"].items())
    return ", ".join(itertools.chain([_quoted(choice.method)], values))


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(key)}: {_literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    """A literal in double quotes, where that needs no escapes."""
    return repr(text) if '"' in text or "\\" in text or not text.isprintable() else f'"{text}"'
