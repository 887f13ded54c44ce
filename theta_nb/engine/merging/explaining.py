"""The formula of one parameter of a merge, with the numbers in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from theta_nb.engine.merging.decisions import Decision
from theta_nb.engine.merging.outcomes import Outcome, split
from theta_nb.merges.gram import Combination, Gram

__all__ = ["explain"]

_SHOWN_LEAST = 5e-4  # smaller coefficients of a fitted combination are noise


def explain(
    decision: Decision,
    gram: Gram | None,
    outcome: Outcome | None,
    labels: Sequence[str],
    *,
    depth: float,
    scale: float,
    decided: Mapping[str, tuple[float, ...]],
) -> str:
    """The formula of one parameter with the numbers in it, and why it is used.

    Parameters
    ----------
    decision
        What is done.
    gram
        Gram matrix of its inputs, if they can be compared.
    outcome
        Lengths of its result, if they are known.
    labels
        Names of the inputs.
    depth, scale
        Place in the model, and the factor that the method puts on task vectors there.
    decided
        What the method derived from sums over the tensor.
    """
    unit, method = decision.unit, decision.method
    head = f"{unit.name}: {unit.state.value}"
    if method is None:
        return (
            f"{head}\n  dropped" if decision.dropped else f"{head}\n  = {decision.called(labels)}  ({decision.reason})"
        )
    names = [labels[k] for k in decision.inputs]
    given = ", ".join(f"{name}={_shown(value)}" for name, value in decision.parameters.items())
    lines = [head, f"  {method.name}({given}) of {', '.join(names)} at depth {depth:.2f}  ({decision.reason})"]
    if not method.gram:
        lines += [f"  {method.summary}"] + [f"  {method.paper}"] * bool(method.paper)
    elif gram is not None and decision.parameters.get("axis", "tensor") == "tensor":
        made = method.from_gram(gram.scaled(scale), decision.parameters)
        lines.append(f"  = {_formula(made, names, scale)}")
    for key, numbers in decided.items():
        if key != "combination":
            lines.append(f"  {key}: {', '.join(f'{number:.4g}' for number in numbers)}")
    if outcome is not None:
        lines += _measured(outcome, gram, names, formula=not method.gram)
    return "\n".join(lines)


def _measured(outcome: Outcome, gram: Gram | None, names: Sequence[str], *, formula: bool) -> Iterator[str]:
    """Lines about the lengths of a result."""
    about = "about " if outcome.estimated else ""
    found = split(outcome, gram) if formula and gram is not None else None
    if found is not None and gram is not None:
        origin, *rest = map(_rounded, found.coordinates)
        made = Combination(tuple(rest), _rounded(origin - sum(rest)), shifted=abs(origin - 1) < _SHOWN_LEAST)
        share = found.rest / outcome.distances[0] if outcome.distances[0] else 0.0
        left = f", and {share:.0%} of the change that no combination gives" if share >= 0.005 else ""
        yield f"  ≈ {_formula(made, names, 1.0, digits=3)}{left}"
    text = f"  norm {about}{outcome.norm:.4g}"
    if outcome.distances:
        parents = (["original"] if gram is not None and gram.has_base else []) + list(names)
        text += f"; distance {about}" + ", ".join(
            f"{d:.4g} to {p}" for p, d in zip(parents, outcome.distances, strict=True)
        )
    yield text


def _rounded(number: float) -> float:
    return number if abs(number) >= _SHOWN_LEAST else 0.0


def _formula(made: Combination, names: Sequence[str], scale: float, digits: int = 6) -> str:
    terms = []
    factor = scale if made.shifted else 1.0
    if made.shifted:
        terms.append("original")
    elif float(made.base):
        terms.append(f"{float(made.base):.{digits}g} original")
    for c, name in zip(made.inputs, names, strict=True):
        number = float(c) * factor
        if number:
            what = f"({name} - original)" if made.shifted or scale != 1 else name
            sign = ("- " if number < 0 else "+ ") if terms else ("-" if number < 0 else "")
            terms.append(f"{sign}{abs(number):.{digits}g} {what}")
    return " ".join(terms) or "0"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return _shown(value[0]) if len(set(value)) == 1 else "[" + ", ".join(_shown(one) for one in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
