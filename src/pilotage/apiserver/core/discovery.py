"""Discovery documents: what kubectl reads to learn which resources exist.

Stands apart as a plain translation of the resources served. Three shapes: the old per-group-version lists, the group
list, and the aggregated document (KEP-3352) that answers everything in one request.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping

from pilotage.api.catalogue import Resource, Subresource
from pilotage.apiserver.core.record import Document

GroupVersions = Mapping[str, Mapping[str, tuple[Resource, ...]]]


def core_versions(server_address: str) -> Document:
    """`/api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    }


def group(name: str, versions: Iterable[str]) -> Document:
    """One APIGroup."""
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def group_list(groups: GroupVersions) -> Document:
    """`/apis`."""
    listed = [group(name, versions) for name, versions in groups.items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def group_document(name: str, versions: Iterable[str]) -> Document:
    """`/apis/<group>`."""
    return {"kind": "APIGroup", "apiVersion": "v1", **group(name, versions)}


def resource_list(group_version: str, resources: Iterable[Resource]) -> Document:
    """`/api/v1` and `/apis/<group>/<version>`."""
    listed: list[Document] = []
    for resource in resources:
        entry: Document = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        if resource.stored:
            entry["storageVersionHash"] = _storage_version_hash(resource)
        listed.append(entry)
        listed += [_subresource_entry(resource, item) for item in resource.subresources]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


def _subresource_entry(resource: Resource, subresource: Subresource) -> Document:
    entry: Document = {
        "name": f"{resource.plural}/{subresource.name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": subresource.kind,
        "verbs": list(subresource.verbs),
    }
    if subresource.group is not None:
        entry |= {"group": subresource.group, "version": subresource.version or resource.version}
    return entry


def _storage_version_hash(resource: Resource) -> str:
    digest = hashlib.sha256(f"{resource.group}/{resource.version}/{resource.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def aggregated(groups: GroupVersions, *, core: bool) -> Document:
    """`/api` (core) or `/apis` as `apidiscovery.k8s.io/v2`."""
    items = [
        {
            "metadata": {"name": name, "creationTimestamp": None},
            "versions": [
                {
                    "version": version,
                    "resources": [_aggregated_resource(resource) for resource in resources],
                    "freshness": "Current",
                }
                for version, resources in versions.items()
            ],
        }
        for name, versions in groups.items()
        if (not name) is core
    ]
    if core:
        items = [item | {"metadata": {"creationTimestamp": None}} for item in items]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated_resource(resource: Resource) -> Document:
    entry: Document = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.subresources:
        entry["subresources"] = [
            {
                "subresource": item.name,
                "responseKind": {
                    "group": resource.group if item.group is None else item.group,
                    "version": item.version or resource.version,
                    "kind": item.kind,
                },
                "verbs": list(item.verbs),
            }
            for item in resource.subresources
        ]
    return entry
