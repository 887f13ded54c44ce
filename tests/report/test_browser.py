"""The HTML of a diff in a real browser, on a light and on a dark page."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import matplotlib.image as images
import numpy as np
import pytest

from theta_nb.report.checkpoint_diff import CheckpointDiff

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1150,800"),
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]


def screenshot(page: Path, profile: Path, *, dark: bool) -> np.ndarray:
    """Pixels of a page, 0 to 1."""
    target = page.with_suffix(".dark.png" if dark else ".light.png")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    subprocess.run(
        [str(CHROMIUM), *FLAGS, *scheme, f"--user-data-dir={profile}", f"--screenshot={target}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return images.imread(target)[:, :, :3].mean(axis=2)


def test_reads_well_on_light_and_dark_pages(diff: CheckpointDiff, tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    page.write_text(diff.to_html(page=True), "utf-8")
    light, dark = (screenshot(page, tmp_path / "profile", dark=dark) for dark in (False, True))
    assert np.median(light) > 0.9
    assert np.median(dark) < 0.15
    for pixels, text in ((light, light < 0.35), (dark, dark > 0.65)):
        share = text.mean()
        assert 0.003 < share < 0.2, f"text stands out from the page: {share}"
        assert text[:, -10:].mean() < 0.01, "nothing runs out of the page"
        assert pixels.shape == (800, 1150)


def test_the_browser_keeps_every_row(diff: CheckpointDiff, tmp_path: Path) -> None:
    """Tags that are left out are put where they belong."""
    page = tmp_path / "diff.html"
    page.write_text(diff.to_html(page=True), "utf-8")
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    # A row for every parameter, one below it for each note, and the head.
    notes = sum(bool(change.note or change.tied or change.status == "renamed") for change in diff)
    assert done.stdout.count("<tr") == len(diff) + notes + 1
    assert done.stdout.count("<td") == done.stdout.count("</td>")
    assert "<script" not in done.stdout
