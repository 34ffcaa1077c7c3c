"""Work that changes the thread it runs on: namespaces entered, identities dropped.

Apart because what a thread has given up it does not get back: such work needs a thread that ends with it. Linux only:
elsewhere namespaces belong to processes (setns(2), unshare(2)).
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def on_own_thread(function: Callable[[], T], *, name: str) -> T:
    """Call `function` on a new thread, wait, and return what it returns or raise what it raises. Costs 0.1 ms."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, name=name)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


async def await_on_own_thread(function: Callable[[], T], *, name: str) -> T:
    """As `on_own_thread`, while the event loop goes on.

    When cancelled the thread still runs to its end; what it returns or raises is lost.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def succeed(value: T) -> None:
        if not done.done():
            done.set_result(value)

    def fail(error: BaseException) -> None:
        if not done.done():
            done.set_exception(error)

    def work() -> None:
        try:
            value = function()
        except BaseException as error:
            loop.call_soon_threadsafe(fail, error)
        else:
            loop.call_soon_threadsafe(succeed, value)

    threading.Thread(target=work, name=name).start()
    return await done
