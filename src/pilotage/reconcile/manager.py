"""Several controllers in one process, sharing one informer per kind."""

from typing import Any, TypeVar, cast

from pilotage.api.meta_v1 import Object
from pilotage.client.client import Client
from pilotage.client.events import EventRecorder
from pilotage.client.informer import Informer
from pilotage.kit.tasks import task_set
from pilotage.reconcile.controller import Controller

K = TypeVar("K", bound=Object)


class Manager:
    """Owns informers, the event recorder and controllers; `run` runs them all."""

    def __init__(self, client: Client, *, component: str) -> None:
        self.client = client
        self.events = EventRecorder(client, component)
        self._informers: dict[tuple[type[Object], str, str, str], Informer[Any]] = {}
        self._controllers: list[Controller] = []

    def informer(
        self, kind: type[K], *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> Informer[K]:
        """The shared informer of a kind and scope; made on first use, started by `run`."""
        key = (kind, namespace, label_selector, field_selector)
        if key not in self._informers:
            self._informers[key] = Informer(
                self.client, kind, namespace=namespace, label_selector=label_selector, field_selector=field_selector
            )
        return cast(Informer[K], self._informers[key])

    def add(self, controller: Controller) -> Controller:
        self._controllers.append(controller)
        return controller

    async def wait_synced(self) -> None:
        """Until every informer holds a complete copy."""
        for informer in self._informers.values():
            await informer.wait_synced()

    @property
    def idle(self) -> bool:
        """Synced, and no controller has anything ready or in work."""
        return all(informer.synced for informer in self._informers.values()) and all(
            controller.queue.idle for controller in self._controllers
        )

    async def run(self) -> None:
        """Until cancelled."""
        async with task_set() as tasks:
            tasks.start(self.events.run(), name="events")
            for informer in self._informers.values():
                tasks.start(informer.run(), name=f"informer-{informer.kind.plural}")
            for controller in self._controllers:
                tasks.start(controller.run(), name=controller.name)
            await tasks.wait()
