"""The bounded pipeline: order, reuse of buffers, and errors that come out where they belong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from theta_nb.engine.pipeline import Pipeline


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(3) as threads:
        yield threads


def test_results_come_in_the_order_of_submission_whatever_finishes_first(executor: Executor) -> None:
    first_may_end = threading.Event()
    taken: list[int] = []
    pipeline: Pipeline[int] = Pipeline(executor, 3, lambda result, _: taken.append(result))

    def slow(_: memoryview) -> int:
        assert first_may_end.wait(10)
        return 0

    def quick(_: memoryview) -> int:
        first_may_end.set()
        return 1

    pipeline.submit(slow, pipeline.buffer())
    pipeline.submit(quick, pipeline.buffer())
    pipeline.finish()
    assert taken == [0, 1]


def test_no_more_buffers_are_made_than_asked_for(executor: Executor) -> None:
    seen = set()
    pipeline: Pipeline[int] = Pipeline(executor, 2, lambda *_: None)
    for _ in range(20):
        buffer = pipeline.buffer()
        seen.add(id(buffer.obj))
        pipeline.submit(len, buffer)
    pipeline.finish()
    assert len(seen) == 2


def test_a_buffer_is_not_used_again_before_its_result_was_taken(executor: Executor) -> None:
    def take(expected: int, buffer: memoryview) -> None:
        assert buffer[0] == expected, "the buffer was filled again under the result"

    pipeline: Pipeline[int] = Pipeline(executor, 2, take)
    for i in range(50):
        buffer = pipeline.buffer()
        buffer[0] = i
        pipeline.submit(lambda b: b[0], buffer)
    pipeline.finish()


def test_an_error_of_the_work_reaches_the_caller(executor: Executor) -> None:
    def fail(_: memoryview) -> int:
        raise ValueError("work")

    pipeline: Pipeline[int] = Pipeline(executor, 2, lambda *_: None)
    pipeline.submit(fail, pipeline.buffer())
    with pytest.raises(ValueError, match="work"):
        pipeline.finish()
    pipeline.abandon()


def test_abandoning_waits_for_what_runs_and_drops_the_rest() -> None:
    started, may_end = threading.Event(), threading.Event()
    done: list[int] = []

    def work(_: memoryview) -> int:
        started.set()
        assert may_end.wait(10)
        done.append(1)
        return 1

    with ThreadPoolExecutor(1) as executor:
        pipeline: Pipeline[int] = Pipeline(executor, 3, lambda *_: None)
        for _ in range(3):
            pipeline.submit(work, pipeline.buffer())
        assert started.wait(10)
        abandoning = threading.Thread(target=pipeline.abandon)
        abandoning.start()
        may_end.set()
        abandoning.join(10)
        assert not abandoning.is_alive()
    # The one that ran ended before abandon() returned; a second may have been picked up before it was cancelled.
    assert 1 <= len(done) <= 2
