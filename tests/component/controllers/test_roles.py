"""Aggregated ClusterRoles follow the roles they are made of."""

from typing import Any

from pilotage.api.rbac_v1 import ClusterRole

GROUP = "rbac.authorization.k8s.io"


async def test_a_labelled_role_shows_in_view_and_leaves_it_again(world: Any) -> None:
    await world.follow(ClusterRole)
    rule = {"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["crontabs"]}
    labels = {f"{GROUP}/aggregate-to-view": "true"}

    def shown() -> bool:
        view = world.informers[ClusterRole].get("view")
        return rule in (view.rules or ())

    await world.create(
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "crontabs", "labels": labels},
            "rules": [rule],
        }
    )
    await world.until(shown)
    await world.client.delete(ClusterRole, "crontabs")
    await world.until(lambda: not shown())
