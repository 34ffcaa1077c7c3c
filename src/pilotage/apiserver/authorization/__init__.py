"""May they.

Purpose: decide whether a user may do what a request asks, by roles, by being a node, or by being a master.
Inputs → outputs: UserInfo and the route of a request → nothing, or 403 in Kubernetes' words.
Invariants: what no rule allows is forbidden; nobody can grant by roles what they may not do; a node reads only its
pods, and the Secrets and ConfigMaps they name.
Reading order: `rules`, `rbac`, `node`, `authorizer`, `escalation`, `reviews`, `bootstrap`.
Specifications: https://kubernetes.io/docs/reference/access-authn-authz/{rbac,node,authorization}/
"""

from pilotage.apiserver.authorization.authorizer import Authorizer
from pilotage.apiserver.authorization.bootstrap import bootstrap_objects, reconciled
from pilotage.apiserver.authorization.escalation import check_escalation

__all__ = ["Authorizer", "bootstrap_objects", "check_escalation", "reconciled"]
