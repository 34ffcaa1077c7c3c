import asyncio

from pilotage.client.workqueue import WorkQueue


async def test_many_adds_before_a_take_are_one() -> None:
    queue = WorkQueue[str]()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert [await queue.take(), await queue.take()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_in_work_comes_back_only_when_done() -> None:
    queue = WorkQueue[str]()
    queue.add("a")
    assert await queue.take() == "a"
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.take() == "a"
    queue.done("a")
    assert queue.idle


async def test_a_waiting_taker_is_woken() -> None:
    queue = WorkQueue[str]()
    async with asyncio.TaskGroup() as group:
        taker = group.create_task(queue.take())
        await asyncio.sleep(0)
        queue.add("a")
    assert taker.result() == "a"


async def test_a_cancelled_taker_loses_nothing() -> None:
    queue = WorkQueue[str]()
    async with asyncio.TaskGroup() as group:
        first, second = group.create_task(queue.take()), group.create_task(queue.take())
        await asyncio.sleep(0)
        queue.add("a")
        first.cancel()
    assert second.result() == "a"


async def test_the_earliest_of_several_delays_wins() -> None:
    queue = WorkQueue[str]()
    queue.add_after("a", 60)
    queue.add_after("a", 0.001)
    async with asyncio.timeout(5):
        assert await queue.take() == "a"
    queue.close()


async def test_retries_back_off_and_forget_resets_them() -> None:
    queue = WorkQueue[str]()
    delays = [queue.retry("a") for _ in range(3)]
    assert delays == [0.005, 0.01, 0.02]
    queue.forget("a")
    assert queue.retry("a") == 0.005
    queue.close()
