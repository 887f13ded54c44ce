"""Other programs on the PATH than there are."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def path_without_git_lfs(folder: Path) -> str:
    """A PATH with git and git-theta, and no git-lfs."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("git", "sh", "cat", "sed", "uname"):
        found = shutil.which(name)
        assert found, f"{name} is missing on this machine"
        (programs / name).symlink_to(found)
    (programs / "git-theta").symlink_to(Path(sys.executable).parent / "git-theta")
    return str(programs)


def path_with_old_git_lfs(folder: Path) -> str:
    """A PATH on which git-lfs says that it is 3.0 and does not know ``--stdin``, as that one."""
    programs = folder / "programs"
    programs.mkdir()
    real = shutil.which("git-lfs")
    assert real, "git-lfs is missing on this machine"
    script = programs / "git-lfs"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> "{folder}/calls"\n'
        'case "$1" in version) echo "git-lfs/3.0.2 (GitHub; linux amd64)"; exit 0;; esac\n'
        'for word; do [ "$word" = --stdin ] && { echo "unknown flag: --stdin" >&2; exit 127; }; done\n'
        f'exec "{real}" "$@"\n'
    )
    script.chmod(0o755)
    return f"{programs}{os.pathsep}{os.environ['PATH']}"
