"""What ``%load_ext theta_nb`` registers, and ``%unload_ext theta_nb`` takes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from theta_nb.jupyter.completion import Completion
from theta_nb.jupyter.display import register_formatters
from theta_nb.jupyter.magics import ThetaMagics
from theta_nb.jupyter.options import Theta

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load", "unload"]


def load(shell: InteractiveShell) -> None:
    """Register the magic ``%theta``, its completion, its settings and the display of results; once."""
    if _magics(shell) is not None:
        return
    options = Theta(parent=shell)
    configurables: list[Any] = shell.configurables
    configurables.append(options)  # where '%config' looks
    magics = ThetaMagics(shell, options)
    shell.register_magics(magics)
    register_formatters(shell)
    completer = getattr(shell, "Completer", None)
    if completer is not None:
        completer.custom_matchers.append(Completion(shell).matcher)


def unload(shell: InteractiveShell) -> None:
    """Take the magic, its completion and its settings away again."""
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("theta", None)
    shell.configurables[:] = [item for item in shell.configurables if not isinstance(item, Theta)]
    completer = getattr(shell, "Completer", None)
    if completer is not None:
        completer.custom_matchers[:] = [
            matcher for matcher in completer.custom_matchers if not getattr(matcher, "is_theta", False)
        ]


def _magics(shell: InteractiveShell) -> object | None:
    found: object | None = shell.magics_manager.magics["line"].get("theta")
    return found
