"""Names, labels and the other small texts of Kubernetes: what is well-formed, and the words that say why not.

Apart from `schema_validation` because strategies, admission and selectors judge the same texts. Every function returns
a message in Kubernetes' wording, or None when the text is good.

Specification: RFC 1123, RFC 1035, https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps

LABEL_MAX = 63
SUBDOMAIN_MAX = 253
ANNOTATIONS_BYTES_MAX = 256 * 1024

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED})?"
_ENVIRONMENT = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_CONFIG_KEY = r"[-._a-zA-Z0-9]+"

_label = re.compile(_LABEL).fullmatch
_subdomain = re.compile(_SUBDOMAIN).fullmatch
_label_1035 = re.compile(_LABEL_1035).fullmatch
_qualified = re.compile(_QUALIFIED).fullmatch
_config_key = re.compile(_CONFIG_KEY).fullmatch
_port_name = re.compile("[-a-z0-9]+").fullmatch
# Environment variables: every printable ASCII character but "=" (since 1.32).
_environment = re.compile(r"[\x20-\x3c\x3e-\x7e]+").fullmatch

Rule = Callable[[str], str | None]


def _remembered(rule: Rule) -> Rule:
    """A rule that keeps its verdicts: containers, labels, ports and endpoints are named alike over and over.

    Long texts are judged anew, so that the memory is bounded in bytes too.
    """
    remembered = lru_cache(maxsize=8192)(rule)

    @wraps(rule)
    def judge(text: str) -> str | None:
        return remembered(text) if len(text) <= SUBDOMAIN_MAX else rule(text)

    return judge


def _too_long(limit: int) -> str:
    return f"must be no more than {limit} characters"


def _pattern(text: str, example: str, pattern: str, *more: str) -> str:
    examples = " or ".join(f"'{word}'" for word in (example, *more))
    return f"{text} (e.g. {examples}, regex used for validation is '{pattern}')"


@_remembered
def dns_label(text: str) -> str | None:
    """RFC 1123 label: namespaces, containers, volumes, headless host names."""
    if len(text) > LABEL_MAX:
        return _too_long(LABEL_MAX)
    if _label(text):
        return None
    return _pattern(
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
        "with an alphanumeric character",
        "my-name", _LABEL, "123-abc",
    )  # fmt: skip


def dns_label_1035(text: str) -> str | None:
    """RFC 1035 label, which starts with a letter: names of Services."""
    if len(text) > LABEL_MAX:
        return _too_long(LABEL_MAX)
    if _label_1035(text):
        return None
    return _pattern(
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
        "character, and end with an alphanumeric character",
        "my-name", _LABEL_1035, "abc-123",
    )  # fmt: skip


def dns_subdomain(text: str) -> str | None:
    """RFC 1123 subdomain: the names of most objects."""
    if len(text) > SUBDOMAIN_MAX:
        return _too_long(SUBDOMAIN_MAX)
    if _subdomain(text):
        return None
    return _pattern(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
        "and end with an alphanumeric character",
        "example.com", _SUBDOMAIN,
    )  # fmt: skip


def path_segment(text: str) -> str | None:
    """Names that need only be addressable: roles and bindings (`system:node`)."""
    if text in (".", ".."):
        return f"may not be '{text}'"
    for letter in "/%":
        if letter in text:
            return f"may not contain '{letter}'"
    return None


@_remembered
def qualified_name(text: str) -> str | None:
    """Label keys, annotation keys, finalizers: an optional DNS prefix and a name."""
    prefix, slash, name = text.rpartition("/")
    if slash:
        if not prefix:
            return "prefix part must be non-empty"
        if (problem := dns_subdomain(prefix)) is not None:
            return f"prefix part {problem}"
    if not name:
        return "name part must be non-empty"
    if len(name) > LABEL_MAX:
        return f"name part {_too_long(LABEL_MAX)}"
    if not _qualified(name):
        return _pattern(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character",
            "MyName", _QUALIFIED, "my.name", "123-abc",
        )  # fmt: skip
    return None


@_remembered
def label_value(text: str) -> str | None:
    """A label's value; may be empty."""
    if len(text) > LABEL_MAX:
        return _too_long(LABEL_MAX)
    if not text or _qualified(text):
        return None
    return _pattern(
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
        "and end with an alphanumeric character",
        "MyValue", _LABEL_VALUE, "my_value", "12345",
    )  # fmt: skip


def config_key(text: str) -> str | None:
    """A key of a ConfigMap or Secret, which may become a file name."""
    if len(text) > SUBDOMAIN_MAX:
        return _too_long(SUBDOMAIN_MAX)
    if not _config_key(text):
        return _pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "key.name", _CONFIG_KEY, "KEY_NAME", "key-name",
        )  # fmt: skip
    if text in (".", "..") or text.startswith(".."):
        return "must not be '.' or start with '..'"
    return None


def environment_name(text: str) -> str | None:
    """The name of an environment variable."""
    if _environment(text):
        return None
    return 'a valid environment variable name must consist only of printable ASCII characters other than "="'


@_remembered
def port_name(text: str) -> str | None:
    """An IANA service name: the name of a container's or Service's port (RFC 6335 section 5.1)."""
    if len(text) > 15:
        return "must be no more than 15 characters"
    if not _port_name(text):
        return "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
    if not any(letter.isalpha() for letter in text):
        return "must contain at least one letter (a-z)"
    if "--" in text:
        return "must not contain consecutive hyphens"
    if text[0] == "-" or text[-1] == "-":
        return "must not begin or end with a hyphen"
    return None


def wildcard_subdomain(text: str) -> str | None:
    """A host name whose first label may be `*`: hosts of an Ingress."""
    if not text.startswith("*."):
        return dns_subdomain(text)
    problem = dns_subdomain(text[2:])
    return (
        None if problem is None else "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid subdomain"
    )


@_remembered
def ip_address(text: str) -> str | None:
    """An IPv4 or IPv6 address without leading zeros or zone."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
    return "must not have a zone" if "%" in text else None


def cidr(text: str) -> str | None:
    """An address block such as 10.9.8.0/24."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
    return None if "/" in text else "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


# Kinds whose names follow another rule than the DNS subdomain.
NAME_RULES: Mapping[tuple[str, str], Rule] = {
    ("", "Namespace"): dns_label,
    ("", "Service"): dns_label_1035,
    ("rbac.authorization.k8s.io", "Role"): path_segment,
    ("rbac.authorization.k8s.io", "ClusterRole"): path_segment,
    ("rbac.authorization.k8s.io", "RoleBinding"): path_segment,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): path_segment,
    ("certificates.k8s.io", "CertificateSigningRequest"): dns_subdomain,
    ("networking.k8s.io", "IPAddress"): path_segment,  # with the colons of the sixth version
    ("apiregistration.k8s.io", "APIService"): path_segment,  # the core group's is called `v1.`
}


def name_rule(group: str, kind: str) -> Rule:
    """The rule the names of a kind follow."""
    return NAME_RULES.get((group, kind), dns_subdomain)
