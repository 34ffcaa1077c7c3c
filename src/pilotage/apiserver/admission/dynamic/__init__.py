"""Admission that is configured while the server runs: webhooks and policies.

Purpose: let others complete and judge writes, as the admissionregistration.k8s.io API says.
Inputs → outputs: an operation and the configurations as of now → who is concerned; what they answer → a changed
document, warnings, or a refusal.
Invariants: configurations are never asked about themselves; what is asked ends within its timeout; a policy that cannot
be evaluated and a webhook that cannot be called refuse or allow as their failurePolicy says; the server's own writes
are not subject to them, so that no configuration can lock it out of its own start.
Reading order: `matching` (who is concerned), `review` (what webhooks are asked), `webhooks`, `bound` (what policies
share), `policies` (validating ones), `mutations`, `mutating_policies`, `hooks` (all of them behind one seam), `checks`
(what a configuration may say).
Specifications: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/,
https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/ (KEP-3488),
https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/ (KEP-3962)
"""

from pilotage.apiserver.admission.dynamic.bound import GROUP
from pilotage.apiserver.admission.dynamic.checks import RULES
from pilotage.apiserver.admission.dynamic.hooks import DynamicAdmission

__all__ = ["GROUP", "RULES", "DynamicAdmission"]
