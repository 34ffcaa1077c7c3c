"""Probes' counting, the log format, the framing of streams."""

import json

import pytest

from pilotage.agent.core import channel, log_format, probe
from pilotage.agent.core.channel import Input, InputClosed, Resized
from pilotage.agent.core.log_format import LogLine, Renderer
from pilotage.agent.core.probe import ProbeKind
from pilotage.api.core_v1 import ExecAction, Probe, TCPSocketAction

from .builders import NOW


def outcomes(kind: ProbeKind, spec: Probe, results: str) -> list[bool]:
    """`"+-"` → what the probe concludes after each."""
    state = probe.begin(kind, spec, NOW)
    found = []
    for mark in results:
        state = probe.receive(state, spec, success=mark == "+", at=state.due_at)
        found.append(state.passed)
    return found


def exec_probe(**values: int) -> Probe:
    return Probe(exec=ExecAction(command=("x",)), **values)


@pytest.mark.parametrize(
    ("kind", "values", "results", "passed"),
    [
        (ProbeKind.READINESS, {}, "+", [True]),
        (ProbeKind.READINESS, {"success_threshold": 2}, "++", [False, True]),
        (ProbeKind.READINESS, {"failure_threshold": 2}, "+-+--", [True, True, True, True, False]),
        (ProbeKind.LIVENESS, {"failure_threshold": 3}, "--+---", [True, True, True, True, True, False]),
        (ProbeKind.STARTUP, {"failure_threshold": 3}, "--+", [False, False, True]),
    ],
)
def test_thresholds(kind: ProbeKind, values: dict[str, int], results: str, passed: list[bool]) -> None:
    assert outcomes(kind, exec_probe(**values), results) == passed


def test_delay_then_period() -> None:
    spec = exec_probe(initial_delay_seconds=5, period_seconds=7)
    state = probe.begin(ProbeKind.LIVENESS, spec, NOW)
    assert state.due_at == NOW + 5
    assert probe.receive(state, spec, success=True, at=NOW + 5.5).due_at == NOW + 12.5


def test_a_failed_liveness_and_a_settled_startup_probe_run_no_more() -> None:
    spec = exec_probe(failure_threshold=1)
    failed = probe.receive(probe.begin(ProbeKind.LIVENESS, spec, NOW), spec, success=False, at=NOW)
    assert probe.has_failed_for_good(failed)
    passed = probe.receive(probe.begin(ProbeKind.STARTUP, spec, NOW), spec, success=True, at=NOW)
    assert passed.on_hold
    assert not probe.has_failed_for_good(passed)


def test_network_readiness_is_eager_until_its_first_success_and_counts_no_early_failure() -> None:
    spec = Probe(tcp_socket=TCPSocketAction(port=80), period_seconds=1, failure_threshold=1)
    state = probe.begin(ProbeKind.STARTUP, spec, NOW)
    delays = []
    for _ in range(5):
        before = state.due_at
        state = probe.receive(state, spec, success=False, at=before)
        delays.append(round(state.due_at - before, 3))
        assert not probe.has_failed_for_good(state)
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.8]
    state = probe.receive(state, spec, success=False, at=state.due_at)
    assert probe.has_failed_for_good(state)


def test_log_lines_are_parsed_and_torn_ones_skipped() -> None:
    assert log_format.parse(b"2026-01-01T00:00:00.1Z stdout F hello world") == LogLine(
        time="2026-01-01T00:00:00.1Z", stream="stdout", partial=False, text=b"hello world"
    )
    assert log_format.parse(b"t stderr P ").text == b""
    assert log_format.parse(b"t stdout F").text == b""
    for torn in (b"", b"2026", b"2026-01-01T00:00:00Z std", b"t nowhere F x", b"t stdout X x"):
        assert log_format.parse(torn) is None


def lines(*raw: bytes) -> list[LogLine]:
    return [line for line in map(log_format.parse, raw) if line is not None]


PARTS = lines(b"1 stdout F a", b"2 stdout P b1", b"3 stdout F b2", b"4 stderr F c")


def test_partial_entries_are_one_line() -> None:
    renderer = Renderer(with_time=True)
    assert b"".join(map(renderer.render, PARTS)) == b"1 a\n2 b1b2\n4 c\n"


@pytest.mark.parametrize(("count", "text"), [(0, b""), (1, b"c\n"), (2, b"b1b2\nc\n"), (9, b"a\nb1b2\nc\n")])
def test_tail_counts_whole_lines(count: int, text: bytes) -> None:
    renderer = Renderer(with_time=False)
    assert b"".join(map(renderer.render, log_format.tail(PARTS, count))) == text


def test_since() -> None:
    (line,) = lines(b"2026-01-01T00:00:10.5Z stdout F x")
    assert log_format.is_since(line, 1767225610.0)
    assert not log_format.is_since(line, 1767225611.0)


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        (b"\x00abc", Input(data=b"abc")),
        (b"\xff\x00", InputClosed()),
        (b"\x04" + json.dumps({"Width": 80, "Height": 24}).encode(), Resized(columns=80, rows=24)),
        (b"\x04" + json.dumps({"Width": 9**9, "Height": -1}).encode(), Resized(columns=65535, rows=0)),
        (b"\x04nonsense", None),
        (b"\x00", None),
        (b"", None),
        (b"\x01abc", None),
        (b"\xff\x01", None),
    ],
)
def test_channel_messages(message: bytes, meaning: object) -> None:
    assert channel.decode(message) == meaning


def test_final_status() -> None:
    assert channel.final_status(0) == b'\x03{"metadata":{},"status":"Success"}'
    failure = json.loads(channel.final_status(9)[1:])
    assert failure["reason"] == "NonZeroExitCode"
    assert failure["details"]["causes"][0] == {"reason": "ExitCode", "message": "9"}
