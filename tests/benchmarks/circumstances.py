"""The machine and the versions of what was measured, for the text under a table."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from measuring import BenchmarkError

__all__ = ["command", "load", "machine", "versions", "working_folder"]

_WORKDIR = "theta-nb-benchmark-"


@contextmanager
def working_folder(parent: Path) -> Iterator[Path]:
    """A folder for the repositories; those of runs that were killed are removed first."""
    parent = parent.absolute()
    if _filesystem(parent) in ("tmpfs", "ramfs"):
        raise BenchmarkError(f"{parent} lies in memory; name a folder on a disk with --workdir")
    for left in parent.glob(f"{_WORKDIR}*-*"):
        process = re.fullmatch(rf"{_WORKDIR}(\d+)-.*", left.name)
        if process and not Path("/proc", process[1]).exists():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_WORKDIR}{os.getpid()}-", dir=parent) as folder:
        yield Path(folder)


def machine(workdir: Path) -> str:
    """Processor, memory, file system and operating system."""
    memory_nbytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory_nbytes / 2**30:.0f} GiB, {_filesystem(workdir)}, "
        f"Linux {platform.release()}"
    )


def versions(*packages: str) -> str:
    """Versions of Python, git, git-lfs and some packages."""
    programs = [_first_line([program, "--version"]).split(" (")[0] for program in ("git", "git-lfs")]
    return ", ".join([f"Python {platform.python_version()}", *programs, *(f"{p} {_version(p)}" for p in packages)])


def command() -> list[str]:
    """The script and its arguments as they are typed at the top of the repository."""
    script = Path(sys.argv[0]).absolute()
    root = script.parents[2]
    return [str(script.relative_to(root)), *sys.argv[1:]]


def load() -> str:
    """Load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def _filesystem(path: Path) -> str:
    """Type of the file system that a path lies on."""
    return _first_line(["stat", "-f", "-c", "%T", str(path)]) or "unknown file system"


def _first_line(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition("\n")[0]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()
