"""Whether a well-formed request may change the cluster as it is now, and what it gets from it.

Purpose: the rules that need other objects: namespaces, service accounts, classes, limits, quotas, Pod Security levels,
what a node may touch, who may decide on certificates; and the allocation of Service addresses and node ports.
Inputs → outputs: an operation on a document → the document completed in place, or a refusal; allocations with a way
back.
Invariants: plugins run in one fixed order; what was allocated for a write that fails is free again; two writes at once
never both take what a quota has left for one; nothing here writes.
Reading order: `operation`, `chain`, then the plugins in the chain's order, `resource_quota`, `service_addresses`;
`hooks` is the seam to `dynamic`, where webhooks and policies are.
Specifications: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/, KEP-3070, KEP-3668.
"""

from pilotage.apiserver.admission.account_secrets import AccountSecrets
from pilotage.apiserver.admission.chain import Admission
from pilotage.apiserver.admission.hooks import NO_HOOKS, Hooks
from pilotage.apiserver.admission.operation import Operation, Undo
from pilotage.apiserver.admission.resource_quota import QuotaLedger
from pilotage.apiserver.admission.service_addresses import ServiceAddresses

__all__ = ["NO_HOOKS", "AccountSecrets", "Admission", "Hooks", "Operation", "QuotaLedger", "ServiceAddresses", "Undo"]
