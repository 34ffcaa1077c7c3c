"""Looks for stale flows beside changes: what the watermark waits for, and what it does not."""

import asyncio
from collections.abc import Callable
from typing import Any

from pilotage.kit.tasks import task_set
from pilotage.network import NetworkError
from pilotage.proxy.core.fragment import Target
from pilotage.proxy.core.layout import sets
from pilotage.proxy.core.plan import Delta, Planner
from pilotage.proxy.core.topology import NodeView
from pilotage.proxy.flows import FlowKeeper

DEADLINE_S = 10.0
BACKENDS = sets("ip").backends
TARGET: Target = b"\x0a\xf4\x01\x02\x1f\x90\0\0"  # 10.244.1.2:8080
KEY = BACKENDS.key.encode("10.96.0.1", "tcp", 80, 1)
TAKEN_AWAY = Delta(deleted={("ip", "backends"): {KEY: TARGET}})


class Looks:
    """Stands for the kernel: each look ends when it may, as it is told to."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.answered_by: list[frozenset[str]] = []

    def __call__(self, matches: Callable[[Any], bool], **among: Any) -> int:
        self.answered_by.append(among["answered_by"])
        if self.failures:
            raise self.failures.pop(0)
        return 1


async def advanced(seen: list[int], reached: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while reached not in seen:
            await asyncio.sleep(0.001)


def make(looks: Looks) -> tuple[FlowKeeper, list[int]]:
    seen: list[int] = []
    return FlowKeeper(looks, Planner(NodeView(name="n1")), seen.append), seen


async def test_the_watermark_waits_for_a_look_only_where_an_endpoint_went() -> None:
    looks = Looks()
    keeper, seen = make(looks)
    async with task_set() as tasks:
        tasks.start(keeper.run(), name="flows")
        keeper.applied(1, Delta())
        assert seen == [1], "nothing went: at once"
        keeper.applied(2, TAKEN_AWAY)
        keeper.applied(3, Delta())
        assert seen == [1], "what comes after waits, too"
        await advanced(seen, 3)
        assert (seen, looks.answered_by) == ([1, 3], [frozenset(("10.244.1.2",))])


async def test_a_look_that_fails_holds_nothing_up() -> None:
    looks = Looks(NetworkError("list tracked flows: refused"), OSError("no descriptor left"))
    keeper, seen = make(looks)
    async with task_set() as tasks:
        tasks.start(keeper.run(), name="flows")
        for reached in (1, 2, 3):
            keeper.applied(reached, TAKEN_AWAY)
            await advanced(seen, reached)
    assert len(looks.answered_by) == 3
