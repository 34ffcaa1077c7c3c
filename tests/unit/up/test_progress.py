"""A start's progress survives the pipe to whoever waits."""

import os
from collections.abc import Mapping

from pilotage.up.progress import PipeReporter, relay


class Recorder:
    def __init__(self) -> None:
        self.told: list[object] = []

    def step(self, text: str) -> None:
        self.told.append(text)

    def ready(self, summary: Mapping[str, str]) -> None:
        self.told.append(dict(summary))

    def failed(self, text: str) -> None:
        self.told.append(("failed", text))


def test_steps_and_readiness_arrive_in_order() -> None:
    reader, writer = os.pipe()
    reporter = PipeReporter(writer)
    reporter.step("fabric")
    reporter.ready({"name": "dev"})
    recorder = Recorder()
    assert relay(reader, recorder)
    assert recorder.told == ["fabric", {"name": "dev"}]


def test_a_failure_arrives() -> None:
    reader, writer = os.pipe()
    PipeReporter(writer).failed("port 6443 is taken")
    recorder = Recorder()
    assert not relay(reader, recorder)
    assert recorder.told == [("failed", "port 6443 is taken")]


def test_a_supervisor_that_dies_without_a_word_is_a_failure() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    recorder = Recorder()
    assert not relay(reader, recorder)
    assert len(recorder.told) == 1


def test_a_reader_that_left_does_not_end_the_supervisor() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    reporter = PipeReporter(writer)
    reporter.step("fabric")
    reporter.step("apiserver")
    reporter.ready({})
