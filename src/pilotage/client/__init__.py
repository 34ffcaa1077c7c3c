"""How components talk to any Kubernetes API server.

Purpose: requests, local copies that follow a watch, queues of keys, events, elections and watermarks.
Inputs → outputs: a kubeconfig and typed kinds in; typed objects, changes and acknowledged writes out.
Invariants: nothing here knows which server it talks to; informers keep their last state while the API is away;
queues, retries and memories are bounded.
Reading order: `kubeconfig`, `client`, `informer`, `workqueue`, `watermark`.
Specifications: Kubernetes API concepts (watch, bookmarks, KEP-3157 streaming lists); client-go's behaviour.
"""

from pilotage.client.client import Client, Listing, PatchType, WatchEvent
from pilotage.client.errors import ConnectionFailed
from pilotage.client.events import EventRecorder
from pilotage.client.informer import Informer
from pilotage.client.kubeconfig import Connection, load_kubeconfig
from pilotage.client.watermark import WatermarkPublisher
from pilotage.client.workqueue import WorkQueue

__all__ = [
    "Client",
    "Connection",
    "ConnectionFailed",
    "EventRecorder",
    "Informer",
    "Listing",
    "PatchType",
    "WatchEvent",
    "WatermarkPublisher",
    "WorkQueue",
    "load_kubeconfig",
]
