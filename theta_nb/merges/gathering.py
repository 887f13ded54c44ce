"""Gathers the statistics that informed methods need from a model and its data.

The result is a state dict: save it as a checkpoint, one for each model that is merged, and give these to
``Repository.merge(…, statistics=[…])`` or ``git theta merge --statistics``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from theta_nb.errors import MergeError

if TYPE_CHECKING:
    import torch

__all__ = ["gather_fisher", "gather_regmean"]


def gather_fisher(
    model: torch.nn.Module,
    batches: Iterable[tuple[Any, Any]],
    loss: Callable[[Any, Any], torch.Tensor],
    *,
    limit: int = 1000,
) -> dict[str, torch.Tensor]:
    """Diagonal of the empirical Fisher information: the mean of the squared gradient over single examples.

    Matena & Raffel, https://arxiv.org/abs/2111.09832. The model is left as it was, also its gradients and mode.

    Parameters
    ----------
    model
        In the state that is to be merged.
    batches
        Pairs of a batch of inputs and of targets, both tensors whose first dimension counts examples.
    loss
        Negative log likelihood of a batch, given the model's output and the targets.
    limit
        Number of examples after which is stopped.

    Returns
    -------
    dict
        A tensor of the shape of each parameter that has a gradient.

    Raises
    ------
    MergeError
        If there are no examples.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> data = [(torch.ones(3, 1), model(torch.ones(3, 1)).detach() + 1)]
    >>> gather_fisher(model, data, lambda out, y: ((out - y) ** 2).sum() / 2)["weight"]
    tensor([[1.]])
    """
    import torch

    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in named.items()}
    seen, training = 0, model.training
    model.eval()
    try:
        for inputs, targets in batches:
            for x, y in zip(inputs, targets, strict=True):
                found = torch.autograd.grad(
                    loss(model(x[None]), y[None]), list(named.values()), allow_unused=True, materialize_grads=True
                )
                for total, gradient in zip(sums.values(), found, strict=True):
                    total += gradient.square()
                seen += 1
                if seen == limit:
                    return {name: total / seen for name, total in sums.items()}
    finally:
        model.train(training)
    if not seen:
        raise MergeError("there are no examples to gather statistics from")
    return {name: total / seen for name, total in sums.items()}


def gather_regmean(model: torch.nn.Module, batches: Iterable[Any], *, limit: int = 1000) -> dict[str, torch.Tensor]:
    """Inner products of the inputs of every linear layer, divided by the number of rows.

    Jin et al., https://arxiv.org/abs/2212.09849. The model is left as it was.

    Parameters
    ----------
    model
        In the state that is to be merged.
    batches
        Batches of inputs, or pairs whose first part these are.
    limit
        Number of batches after which is stopped.

    Returns
    -------
    dict
        Under the name of each linear layer's weight, of shape (out, in), a tensor of shape (in, in).

    Raises
    ------
    MergeError
        If the model has no linear layer, or there are no batches.

    Examples
    --------
    >>> import torch
    >>> gather_regmean(torch.nn.Linear(2, 1), [torch.tensor([[1.0, 2.0]])])["weight"]
    tensor([[1., 2.],
            [2., 4.]])
    """
    import torch

    sums: dict[str, torch.Tensor] = {}
    rows: dict[str, int] = {}

    def watch(name: str) -> Callable[[Any, Any], None]:
        def see(module: Any, arguments: Any) -> None:
            x = arguments[0].detach().reshape(-1, arguments[0].shape[-1]).to(torch.float64)
            sums[name] = sums.get(name, 0) + x.T @ x
            rows[name] = rows.get(name, 0) + len(x)

        return see

    layers = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    hooks = [m.register_forward_pre_hook(watch(f"{name}.weight".lstrip("."))) for name, m in layers.items()]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for count, batch in enumerate(batches, 1):
                model(batch[0] if isinstance(batch, tuple | list) else batch)
                if count == limit:
                    break
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    if not sums:
        raise MergeError("no linear layer was used, so there are no inner products to gather")
    return {name: (total / rows[name]).to(torch.float32) for name, total in sums.items()}
