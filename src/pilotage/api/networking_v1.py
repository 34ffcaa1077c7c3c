"""networking.k8s.io/v1: Ingress and its class.

Source: Kubernetes 1.36 API reference, networking.k8s.io/v1.
"""

from typing import ClassVar

from pilotage.api.codec import Value
from pilotage.api.core_v1 import PortStatus
from pilotage.api.meta_v1 import Object


class ServiceBackendPort(Value):
    """Exactly one of the two is set."""

    name: str = ""
    number: int = 0


class IngressServiceBackend(Value):
    name: str
    port: ServiceBackendPort = ServiceBackendPort()


class TypedLocalObjectReference(Value):
    kind: str
    name: str
    api_group: str = ""


class IngressBackend(Value):
    service: IngressServiceBackend | None = None
    resource: TypedLocalObjectReference | None = None


class HTTPIngressPath(Value):
    backend: IngressBackend
    path: str = ""
    path_type: str = "ImplementationSpecific"


class HTTPIngressRuleValue(Value):
    paths: tuple[HTTPIngressPath, ...] = ()


class IngressRule(Value):
    host: str = ""
    http: HTTPIngressRuleValue | None = None


class IngressTLS(Value):
    hosts: tuple[str, ...] = ()
    secret_name: str = ""


class IngressSpec(Value):
    ingress_class_name: str = ""
    default_backend: IngressBackend | None = None
    tls: tuple[IngressTLS, ...] = ()
    rules: tuple[IngressRule, ...] = ()


class IngressLoadBalancerIngress(Value):
    ip: str = ""
    hostname: str = ""
    ports: tuple[PortStatus, ...] = ()


class IngressLoadBalancerStatus(Value):
    ingress: tuple[IngressLoadBalancerIngress, ...] = ()


class IngressStatus(Value):
    load_balancer: IngressLoadBalancerStatus = IngressLoadBalancerStatus()


class Ingress(Object):
    api_version: ClassVar[str] = "networking.k8s.io/v1"
    kind: ClassVar[str] = "Ingress"
    plural: ClassVar[str] = "ingresses"

    spec: IngressSpec = IngressSpec()
    status: IngressStatus = IngressStatus()


class IngressClassSpec(Value):
    controller: str = ""


class IngressClass(Object):
    api_version: ClassVar[str] = "networking.k8s.io/v1"
    kind: ClassVar[str] = "IngressClass"
    plural: ClassVar[str] = "ingressclasses"
    namespaced: ClassVar[bool] = False

    spec: IngressClassSpec = IngressClassSpec()
