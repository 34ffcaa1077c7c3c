import asyncio

import pytest

from pilotage.kit.tasks import task_set, wait_any


async def test_tasks_end_with_their_block() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async with task_set() as tasks:
        tasks.start(work("a"))
        tasks.start(work("b"), key="b")
        await asyncio.sleep(0)
        assert len(tasks) == 2
    assert sorted(ended) == ["a", "b"]


async def test_a_new_task_of_a_key_replaces_the_old_one() -> None:
    ran: list[int] = []
    both = asyncio.Event()

    async def work(number: int) -> None:
        ran.append(number)
        if number == 2:
            both.set()
        await asyncio.Event().wait()

    async with task_set() as tasks:
        tasks.start(work(1), key="k")
        await asyncio.sleep(0)
        tasks.start(work(2), key="k")
        await both.wait()
        await asyncio.sleep(0)
        assert len(tasks) == 1
        assert "k" in tasks
    assert ran == [1, 2]


async def test_a_failure_is_raised_alone() -> None:
    async def fail() -> None:
        raise LookupError("gone")

    async def block() -> None:
        async with task_set() as tasks:
            tasks.start(fail())
            await tasks.wait()

    with pytest.raises(LookupError, match="gone"):
        await block()


async def test_wait_any_cancels_the_rest() -> None:
    cancelled = False

    async def slow() -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        finally:
            cancelled = True

    async def quick() -> None:
        await asyncio.sleep(0)

    await wait_any(slow(), quick())
    assert cancelled
