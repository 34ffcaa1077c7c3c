"""The columns of pods: the one kind whose status line takes thought.

Stands apart for that reason. The status shown is the reason a human looks for: a failing init container, a waiting or
terminated container, a lost node, a deletion; only then the phase.
"""

from __future__ import annotations

from datetime import datetime

from pilotage.apiserver.core.columns.column import AGE, NAME, NONE, Cell, Column, age_of, condition, dig, text
from pilotage.apiserver.core.record import Document


def _init_status(document: Document) -> str | None:
    """What the first unfinished init container says; None when all are done."""
    specs = {item["name"]: item for item in dig(document, "spec.initContainers") or ()}
    statuses = dig(document, "status.initContainerStatuses") or ()
    for index, status in enumerate(statuses):
        state = status.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated and terminated.get("exitCode") == 0:
            continue
        sidecar = specs.get(status.get("name"), {}).get("restartPolicy") == "Always"
        if sidecar and status.get("started"):
            continue
        if terminated:
            if terminated.get("reason"):
                return f"Init:{terminated['reason']}"
            if terminated.get("signal"):
                return f"Init:Signal:{terminated['signal']}"
            return f"Init:ExitCode:{terminated.get('exitCode')}"
        if waiting and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{len(specs)}"
    return None


def _container_status(document: Document, reason: str) -> str:
    running = False
    for status in reversed(dig(document, "status.containerStatuses") or ()):
        state = status.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if waiting and waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated:
            if terminated.get("reason"):
                reason = terminated["reason"]
            elif terminated.get("signal"):
                reason = f"Signal:{terminated['signal']}"
            else:
                reason = f"ExitCode:{terminated.get('exitCode')}"
        elif status.get("ready") and state.get("running"):
            running = True
    if reason == "Completed" and running:
        return "Running" if condition(document, "Ready").get("status") == "True" else "NotReady"
    return reason


def status(document: Document, now: datetime) -> Cell:
    """The STATUS column."""
    reason = dig(document, "status.reason") or dig(document, "status.phase") or "Unknown"
    if condition(document, "PodScheduled").get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    initial = _init_status(document)
    shown = initial if initial is not None else _container_status(document, reason)
    if document["metadata"].get("deletionTimestamp"):
        if dig(document, "status.reason") == "NodeLost":
            return "Unknown"
        if dig(document, "status.phase") not in ("Succeeded", "Failed"):
            return "Terminating"
    return shown


def ready(document: Document, now: datetime) -> Cell:
    """Ready containers of all; a sidecar counts among them."""
    sidecars = {i["name"] for i in dig(document, "spec.initContainers") or () if i.get("restartPolicy") == "Always"}
    total = len(dig(document, "spec.containers") or ()) + len(sidecars)
    statuses = list(dig(document, "status.containerStatuses") or ())
    statuses += [s for s in dig(document, "status.initContainerStatuses") or () if s.get("name") in sidecars]
    return f"{sum(1 for item in statuses if item.get('ready'))}/{total}"


def restarts(document: Document, now: datetime) -> Cell:
    """Restarts, and when the last one was."""
    statuses = list(dig(document, "status.containerStatuses") or ())
    if _init_status(document) is not None:
        statuses = list(dig(document, "status.initContainerStatuses") or ())
    total = sum(item.get("restartCount", 0) for item in statuses)
    finishes = [dig(item, "lastState.terminated.finishedAt") for item in statuses]
    latest = max((item for item in finishes if item), default=None)
    return f"{total} ({age_of(latest, now)} ago)" if total and latest else str(total)


def _readiness_gates(document: Document, now: datetime) -> Cell:
    gates = dig(document, "spec.readinessGates") or ()
    if not gates:
        return NONE
    passed = sum(1 for gate in gates if condition(document, gate["conditionType"]).get("status") == "True")
    return f"{passed}/{len(gates)}"


PODS = {
    ("", "pods"): (
        NAME,
        Column("Ready", ready),
        Column("Status", status),
        Column("Restarts", restarts),
        AGE,
        Column("IP", text("status.podIP", NONE), priority=1),
        Column("Node", text("spec.nodeName", NONE), priority=1),
        Column("Nominated Node", text("status.nominatedNodeName", NONE), priority=1),
        Column("Readiness Gates", _readiness_gates, priority=1),
    ),
}
