"""At once after a quiet time, then at most once an interval."""

from pilotage.reconcile import Request
from pilotage.reconcile.pace import REMEMBERED_MAX, Pace

WEB, API = Request("default", "web"), Request("default", "api")


def test_the_first_write_goes_at_once_and_the_next_waits_for_the_interval() -> None:
    pace = Pace(interval_s=1.0)
    assert pace.left_s(WEB, 10.0) == 0
    pace.wrote(WEB, 10.0)
    assert pace.left_s(WEB, 10.25) == 0.75
    assert pace.left_s(API, 10.25) == 0
    assert pace.left_s(WEB, 11.0) == 0


def test_old_writes_are_forgotten() -> None:
    pace = Pace(interval_s=1.0)
    for number in range(REMEMBERED_MAX):
        pace.wrote(Request("default", str(number)), 0.0)
    assert pace.left_s(Request("default", "0"), 0.5) == 0.5
    pace.wrote(WEB, 2.0)
    assert pace.left_s(Request("default", "0"), 0.5) == 0
    assert pace.left_s(WEB, 2.0) == 1.0
