"""The log that is written when a command stops for a reason nobody thought of."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
import time
import traceback
from collections.abc import Sequence

from theta_nb import __version__

__all__ = ["write_log"]


def write_log(error: BaseException, argv: Sequence[str]) -> str:
    """Write a traceback where it can be found again.

    Parameters
    ----------
    error
        What stopped the command.
    argv
        The command's arguments.

    Returns
    -------
    str
        Path of the log, in ``.git/theta/logs`` or else in the folder for temporary files.
    """
    from theta_nb.git.endpoints import mask_credentials

    lines = [
        f"theta-nb {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"arguments: {[mask_credentials(word) for word in argv]}",
        f"time: {time.strftime('%Y-%m-%dT%H:%M:%S%z')}",
        "",
        mask_credentials("".join(traceback.format_exception(error))),
    ]
    text = "\n".join(lines).encode("utf-8", "backslashreplace")
    name = f"theta-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in _folders():
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, name)
            with open(path, "xb") as file:
                file.write(text)
            return path
    return "(no log could be written)\n" + text.decode("utf-8", "replace")


def _folders() -> list[str]:
    folders = [tempfile.gettempdir()]
    # Whatever broke may break the search for the repository as well; the log must be written all the same.
    with contextlib.suppress(Exception):
        from theta_nb.git.places import find_places

        folders.insert(0, os.path.join(find_places().theta_dir, "logs"))
    return folders
