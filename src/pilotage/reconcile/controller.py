"""One reconciler, its queue and its workers.

Fed by informers through mapping functions; calls the reconciler; handles every outcome: done, again later, conflict
(again soon, silently), refused or unreachable (backoff, logged), defect (backoff, logged with traceback).
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import structlog

from pilotage.api.meta_v1 import Object
from pilotage.api.status import ApiError, is_conflict
from pilotage.client.errors import ConnectionFailed
from pilotage.client.informer import Informer
from pilotage.client.workqueue import WorkQueue
from pilotage.kit.tasks import task_set
from pilotage.reconcile.request import Request, Result
from pilotage.telemetry import counter, get_logger

K = TypeVar("K", bound=Object)

WORKERS = 8  # requests of one controller in flight; they mostly wait for the API server

_reconciles = counter(
    "pilotage_reconcile_runs_total", "Reconcile calls by controller and outcome.", ("controller", "outcome")
)
_log = get_logger()


class Reconciler(Protocol):
    """Brings the world of one root object to what the API says; may be called at any time, any number of times."""

    async def reconcile(self, request: Request) -> Result: ...


class Controller:
    """Calls `reconciler` for every name that its informers' changes map to."""

    def __init__(self, name: str, reconciler: Reconciler, *, workers: int = WORKERS) -> None:
        self.name = name
        self.queue: WorkQueue[Request] = WorkQueue()
        self._reconciler = reconciler
        self._workers = workers
        self._informers: list[Informer[Object]] = []

    def watch(
        self, informer: Informer[K], mapper: Callable[[K], Iterable[Request]] = lambda obj: (Request.of(obj),)
    ) -> None:
        """Enqueue `mapper(old)` and `mapper(new)` for every change, so that whoever lost an object looks too."""

        def enqueue(old: K | None, new: K | None) -> None:
            for obj in (old, new):
                if obj is not None:
                    for request in mapper(obj):
                        self.queue.add(request)

        informer.add_handler(enqueue)
        self.reads(informer)

    def reads(self, informer: Informer[K]) -> None:
        """Wait for this informer before the first reconcile, without being triggered by it."""
        self._informers.append(informer)  # type: ignore[arg-type]  # only synced-ness is asked of it

    async def run(self) -> None:
        """Work until cancelled."""
        for informer in self._informers:
            await informer.wait_synced()
        async with task_set() as tasks:
            for number in range(self._workers):
                tasks.start(self._work(), name=f"{self.name}-{number}")
            await tasks.wait()

    async def _work(self) -> None:
        while True:
            request = await self.queue.take()
            try:
                await self._reconcile(request)
            finally:
                self.queue.done(request)

    async def _reconcile(self, request: Request) -> None:
        outcome = "ok"
        with structlog.contextvars.bound_contextvars(controller=self.name, request=str(request)):
            try:
                result = await self._reconciler.reconcile(request)
            except ApiError as error:
                outcome = "conflict" if is_conflict(error) else "refused"
                delay_s = self.queue.retry(request)
                if outcome == "refused":
                    _log.warning("reconcile refused", reason=error.reason, error=str(error)[:300], retry_s=delay_s)
            except ConnectionFailed as error:
                outcome = "unreachable"
                delay_s = self.queue.retry(request)
                _log.debug("reconcile unreachable", error=str(error)[:300], retry_s=delay_s)
            except Exception:
                # A defect in one reconciler must not stop the others; it is counted and shown with its traceback.
                outcome = "defect"
                delay_s = self.queue.retry(request)
                _log.exception("reconcile failed", retry_s=delay_s)
            else:
                self.queue.forget(request)
                if result.requeue_after_s is not None:
                    self.queue.add_after(request, result.requeue_after_s)
        _reconciles.labels(self.name, outcome).inc()
