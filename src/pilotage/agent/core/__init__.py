"""The agent's decisions: what a pod is, what should happen to it next, and what is told to the API.

Purpose: everything the node agent decides, as values in and values out.
Inputs → outputs: `Pod` + `PodState` + now → actions, next state, status; `Pod` + image → OCI runtime specification;
`Pod` + Services → environment, resolv.conf, hosts.
Invariants: a container moves only along `container.TRANSITIONS`; restart counts never fall; a finished pod starts
nothing.
Reading order: `container` (the table), `state`, `reception`, `lifecycle`, `status`, `probe`; then `environment`,
`resolver`, `oci`; `channel` and `spdy` are the two ways in which streams travel.
Specifications: KEP-753 (sidecars), KEP-2000 (graceful node), Pod lifecycle in the Kubernetes documentation.
"""
