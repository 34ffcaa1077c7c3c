"""The pure parts of the echo program: identity, plain answers, URLs, the order of DNS questions."""

from __future__ import annotations

import json

import pytest

from pilotage.testing.echo.identity import Identity
from pilotage.testing.echo.plain import answer
from pilotage.testing.echo.resolve import candidates
from pilotage.testing.echo.upstream import Call, format_address

NS = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")


def test_the_downward_api_tells_who_answers() -> None:
    environment = {"POD_NAME": "web-0", "NODE_NAME": "n1", "NODE_ZONE": "zone-a", "POD_IP": "10.244.1.2"}
    identity = Identity.from_environment(environment, hostname="ignored")
    assert identity.as_json() == {"pod": "web-0", "node": "n1", "zone": "zone-a", "ip": "10.244.1.2"}


def test_outside_a_pod_the_host_name_must_do() -> None:
    assert Identity.from_environment({"POD_NAME": ""}, hostname="laptop").as_json() == {"pod": "laptop"}


def test_a_line_comes_back_with_its_story() -> None:
    line = answer(Identity(pod="db-0"), "tcp", b"\xffhello\r\n", "10.0.0.1:5")
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "answered_by": {"pod": "db-0"},
        "protocol": "tcp",
        "request": {"remote": "10.0.0.1:5", "bytes": 8},
        "echo": "�hello",
    }


@pytest.mark.parametrize(
    ("name", "ndots", "expected"),
    [
        pytest.param("api", 5, [f"api.{d}." for d in NS] + ["api."], id="short name: search first"),
        pytest.param(
            "a.b.c.d.e.f", 5, ["a.b.c.d.e.f."] + [f"a.b.c.d.e.f.{d}." for d in NS], id="enough dots: as it is first"
        ),
        pytest.param("a.b", 2, [f"a.b.{d}." for d in NS] + ["a.b."], id="one dot too few"),
        pytest.param("api.default.", 5, ["api.default."], id="absolute: alone"),
    ],
)
def test_names_are_asked_in_the_resolvers_order(name: str, ndots: int, expected: list[str]) -> None:
    assert list(candidates(name, NS, ndots)) == expected


@pytest.mark.parametrize(
    ("call", "host", "port"),
    [
        pytest.param(Call(url="http://api/x"), "api", 80, id="http has a default port"),
        pytest.param(Call(url="https://shop.example.test:1/"), "shop.example.test", 1, id="port of the URL"),
        pytest.param(Call(url="https://a/", connect="127.0.0.1:8443"), "127.0.0.1", 8443, id="dialled elsewhere"),
        pytest.param(Call(url="grpc://a", connect="[::1]:9000"), "::1", 9000, id="dialled elsewhere by IPv6"),
    ],
)
def test_a_url_says_whom_to_dial(call: Call, host: str, port: int) -> None:
    assert call.parse()[1:] == (host, port)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(Call(url="ftp://a/"), id="unknown scheme"),
        pytest.param(Call(url="http:///x"), id="no host"),
        pytest.param(Call(url="tcp://db-0.db"), id="no port"),
        pytest.param(Call(url="http://a:99999/"), id="port out of range"),
        pytest.param(Call(url="http://a/", connect="nowhere"), id="connect without port"),
    ],
)
def test_a_url_that_cannot_be_called_is_said_so(call: Call) -> None:
    with pytest.raises(ValueError):
        call.parse()


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("10.0.0.1", 80), "10.0.0.1:80"),
        (("::ffff:10.0.0.1", 80, 0, 0), "10.0.0.1:80"),
        (("fd00::1", 80, 0, 0), "[fd00::1]:80"),
        (None, ""),
    ],
)
def test_addresses_read_as_people_write_them(address: object, text: str) -> None:
    assert format_address(address) == text
