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


def transfer_agent(folder: Path) -> Path:
    """A program that git-lfs calls to keep objects in a folder, as it may be told to do instead of asking a server."""
    program = folder / "agent"
    (folder / "kept").mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, shutil, sys\n"
        f"folder = {str(folder)!r}\n"
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    if asked['event'] == 'init':\n"
        "        print('{}', flush=True)\n"
        "        continue\n"
        "    if asked['event'] == 'terminate':\n"
        "        break\n"
        "    oid, size = asked['oid'], asked['size']\n"
        "    answer = {'event': 'complete', 'oid': oid}\n"
        "    if asked['event'] == 'upload':\n"
        "        open(f'{folder}/calls', 'a').write(oid + '\\n')\n"
        "        shutil.copyfile(asked['path'], f'{folder}/kept/{oid}')\n"
        "    else:\n"
        "        answer['path'] = shutil.copyfile(f'{folder}/kept/{oid}', f'{folder}/{oid}')\n"
        "    progress = {'event': 'progress', 'oid': oid, 'bytesSoFar': size, 'bytesSinceLast': size}\n"
        "    print(json.dumps(progress), json.dumps(answer), sep='\\n', flush=True)\n"
    )
    program.chmod(0o755)
    return program


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
