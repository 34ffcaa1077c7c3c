"""The Kubernetes API, served.

Purpose: keep the cluster's objects and answer kubectl, controllers and informers as kube-apiserver 1.36 does.
Inputs → outputs: HTTP requests on sockets handed in → objects, lists, watch streams, Status errors; writes → storage.
Invariants: a write is answered only when it is durable and visible to every later read; reads never touch storage;
resourceVersions are the store's revisions, one order over all resources; every refusal is a Status with Kubernetes'
reason; this package is nobody's client.
Reading order: `core.routes`, `front` (the life of a request), `registry` (writes), `pipeline` (what a write passes),
`cache` and `watches` (reads), `custom` (resources defined at run time), `admission.dynamic` (webhooks and policies),
`cel` (their expressions), `streams`, `proxy` and `tunnel` (connections to agents and pods), `server` (how it is put
together).
Specifications: Kubernetes API concepts and API conventions; KEP-555 (apply), KEP-956 (bookmarks), KEP-3157 (watch
list), KEP-2896 (OpenAPI v3), KEP-3352 (aggregated discovery), KEP-95 and KEP-2876 (custom resources), KEP-3488
(admission policies).
"""

from pilotage.apiserver.server import Config, run
from pilotage.storage import backup, restore

__all__ = ["Config", "backup", "restore", "run"]
