"""BLAS keeps to one thread while somebody asks for it, and gets back what it had."""

from __future__ import annotations

import threading

from threadpoolctl import threadpool_info

from theta_nb.updates.blas import single_threaded_blas


def threads() -> set[int]:
    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


def test_other_threads_see_the_setting_and_it_is_taken_back() -> None:
    import numpy as np

    np.ones((2, 2)) @ np.ones((2, 2))
    before, seen = threads(), []
    with single_threaded_blas(), single_threaded_blas():
        other = threading.Thread(target=lambda: seen.append(threads()))
        other.start()
        other.join()
        assert threads() == {1}
    assert seen == [{1}]
    assert threads() == before
