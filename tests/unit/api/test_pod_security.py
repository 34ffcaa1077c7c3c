"""What the Pod Security Standards forbid, in kube-apiserver's words."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage.api.pod_security import violations

GOOD = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def spec(
    context: dict[str, Any] | None = None, /, *, pod: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    container = {"name": "c", **({"securityContext": context} if context is not None else {})}
    made = {"containers": [container | fields.pop("container", {})], **fields}
    return {**made, "securityContext": pod} if pod is not None else made


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (spec(), ""),
        (spec(hostNetwork=True, hostPID=True), "host namespaces (hostNetwork=true, hostPID=true)"),
        (spec({"privileged": True}), 'privileged (container "c" must not set securityContext.privileged=true)'),
        (
            spec({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}),
            'non-default capabilities (container "c" must not include "NET_ADMIN" in securityContext.capabilities.add)',
        ),
        (spec(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), 'hostPath volumes (volume "v")'),
        (spec(container={"ports": [{"hostPort": 80}]}), 'hostPort (container "c" uses hostPort 80)'),
        (
            spec(pod={"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (spec(pod={"sysctls": [{"name": "kernel.msgmax"}]}), "forbidden sysctls (kernel.msgmax)"),
        (
            spec({"seLinuxOptions": {"type": "spc_t", "user": "u"}}),
            'seLinuxOptions (container "c" set forbidden securityContext.seLinuxOptions: type "spc_t"; '
            "user may not be set)",
        ),
        (
            spec({"procMount": "Unmasked"}),
            'procMount (container "c" must not set securityContext.procMount to "Unmasked")',
        ),
        (
            spec({"windowsOptions": {"hostProcess": True}}, pod={"windowsOptions": {"hostProcess": True}}),
            'hostProcess (pod and container "c" must not set securityContext.windowsOptions.hostProcess=true)',
        ),
        (
            spec({"appArmorProfile": {"type": "Unconfined"}}),
            'forbidden AppArmor profile (container "c" must not set AppArmor profile type to "Unconfined")',
        ),
        (
            spec(container={"livenessProbe": {"httpGet": {"host": "other"}}}),
            'probe or lifecycle host (container "c" uses probe or lifecycle host "other")',
        ),
    ],
)
def test_baseline(document: dict[str, Any], message: str) -> None:
    assert violations("baseline", {}, document) == message
    assert violations("privileged", {}, document) == ""


def test_restricted_names_all_that_a_plain_pod_lacks() -> None:
    assert violations("restricted", {}, spec()) == (
        'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), '
        'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), '
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), '
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")'
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (spec(GOOD), ""),
        (spec({**GOOD, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}), ""),
        (spec({**GOOD, "runAsNonRoot": None}, pod={"runAsNonRoot": True}), ""),
        (
            spec({**GOOD, "runAsNonRoot": False}, pod={"runAsNonRoot": True}),
            'runAsNonRoot != true (container "c" must not set securityContext.runAsNonRoot=false)',
        ),
        (spec({**GOOD, "runAsUser": 0}), 'runAsUser=0 (container "c" must not set runAsUser=0)'),
        (
            spec(GOOD, volumes=[{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "nfs": {}}]),
            'restricted volume types (volumes "a", "b" use restricted volume types "hostPath", "nfs")',
        ),
        (
            spec({**GOOD, "capabilities": {"add": ["CHOWN"]}}),
            'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]; '
            'container "c" must not include "CHOWN" in securityContext.capabilities.add)',
        ),
    ],
)
def test_restricted(document: dict[str, Any], message: str) -> None:
    assert violations("restricted", {}, document) == message
