import asyncio
import threading

import pytest

from pilotage.kit.tasks import task_set
from pilotage.kit.threads import await_on_own_thread, on_own_thread


def test_the_result_comes_from_a_thread_that_has_ended() -> None:
    thread = on_own_thread(threading.current_thread, name="own")
    assert thread is not threading.current_thread()
    assert thread.name == "own"
    assert not thread.is_alive()


def test_what_is_raised_on_the_thread_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        on_own_thread(lambda: 1 / 0, name="own")


async def test_the_event_loop_goes_on_meanwhile() -> None:
    released = threading.Event()

    def work() -> threading.Thread:
        assert released.wait(10)
        return threading.current_thread()

    asyncio.get_running_loop().call_soon(released.set)
    thread = await await_on_own_thread(work, name="own")
    assert thread is not threading.current_thread()
    assert thread.name == "own"
    thread.join(10)
    assert not thread.is_alive()


async def test_what_is_raised_meanwhile_is_raised_to_whoever_awaits() -> None:
    with pytest.raises(ZeroDivisionError):
        await await_on_own_thread(lambda: 1 / 0, name="own")


async def test_whoever_is_cancelled_does_not_wait_and_the_thread_runs_to_its_end() -> None:
    complaints: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    released, threads = threading.Event(), []

    def work() -> None:
        threads.append(threading.current_thread())
        assert released.wait(10)

    async with task_set() as tasks:  # its end cancels
        tasks.start(await_on_own_thread(work, name="own"))
        while not threads:
            await asyncio.sleep(0)
    assert threads[0].is_alive()
    released.set()
    await asyncio.to_thread(threads[0].join, 10)
    assert not threads[0].is_alive()
    await asyncio.sleep(0)
    assert complaints == []
