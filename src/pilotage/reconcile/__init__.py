"""The loop that everyone who reconciles shares.

Purpose: turn changes of objects into calls `reconcile(request)`, one at a time per name, retried until they hold.
Inputs → outputs: informers and mappings from objects to requests in; calls of a `Reconciler` out.
Invariants: a request is a name, never an event; no reconcile before every informer it reads is synced; one call per
name at a time; a failed call is retried with backoff and never ends the process.
Reading order: `request`, `controller`, `manager`.
Specifications: controller-runtime's contract, Kubernetes "Writing Controllers".
"""

from pilotage.reconcile.controller import Controller, Reconciler
from pilotage.reconcile.manager import Manager
from pilotage.reconcile.request import DONE, Request, Result

__all__ = ["DONE", "Controller", "Manager", "Reconciler", "Request", "Result"]
