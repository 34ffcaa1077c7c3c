"""Background tasks that somebody awaits.

`asyncio.create_task` loses exceptions and tasks; here every task belongs to a `TaskSet` that ends with its owner.
A failed task ends the owner's block with its exception, exactly like `asyncio.TaskGroup`; unlike it, a set can cancel
one task by key and replace it, which is what workers keyed by object need.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any


class TaskSet:
    """Tasks inside an `asyncio.TaskGroup`; with a key, at most one per key."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()
        self._keyed: dict[Hashable, asyncio.Task[None]] = {}

    def start(self, coroutine: Coroutine[Any, Any, None], *, key: Hashable = None, name: str | None = None) -> None:
        """Run `coroutine` until it ends or the set does; a running task of the same `key` is cancelled first."""
        task = self._group.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if key is not None:
            self.cancel(key)
            self._keyed[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))

    def cancel(self, key: Hashable) -> bool:
        """Cancel the task of `key`; False if none runs. Does not wait for it to finish."""
        task = self._keyed.pop(key, None)
        return task.cancel() if task is not None else False

    async def wait(self) -> None:
        """Until the block is cancelled or a task fails; for owners that have nothing else to do."""
        await asyncio.Event().wait()

    def cancel_all(self) -> None:
        """Cancel every task; the block that owns the set still waits for them."""
        for task in tuple(self._tasks):
            task.cancel()

    def _forget(self, key: Hashable, done: asyncio.Task[None]) -> None:
        if self._keyed.get(key) is done:
            del self._keyed[key]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._keyed

    def __len__(self) -> int:
        return len(self._tasks)


@asynccontextmanager
async def task_set() -> AsyncIterator[TaskSet]:
    """A `TaskSet` whose tasks are cancelled and awaited when the block ends.

    An exception of a task cancels the block and is raised alone if it is the only one (an ExceptionGroup otherwise),
    so that callers can catch what they know.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = TaskSet(group)
            try:
                yield tasks
            finally:
                tasks.cancel_all()
    except BaseExceptionGroup as failures:
        if len(failures.exceptions) == 1:
            raise failures.exceptions[0] from None
        raise


async def wait_any(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Run all until the first one ends, cancel and await the others; the first exception is raised."""
    async with task_set() as tasks:
        finished = asyncio.Event()

        async def run(coroutine: Coroutine[Any, Any, object]) -> None:
            await coroutine
            finished.set()

        for coroutine in coroutines:
            tasks.start(run(coroutine))
        await finished.wait()
