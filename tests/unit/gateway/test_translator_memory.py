"""The translator that remembers equals the one that does not."""

import dataclasses
import random

import pytest

from pilotage.gateway.core import ir
from pilotage.gateway.core.translate import Options, Translator, translate


def random_model(dice: random.Random) -> ir.Ir:
    names = sorted(dice.sample(("a", "b", "c"), dice.randint(0, 3)))
    endpoints = tuple(ir.Endpoint(address=f"10.0.0.{number}", port=80) for number in range(dice.randint(0, 2)))
    clusters = tuple(
        ir.Cluster(name=name, protocol=dice.choice(list(ir.Protocol)), endpoints=endpoints) for name in names
    )
    match = ir.Match(path="/", kind=ir.PathKind.PREFIX)
    routes = tuple(ir.Route(name="r", match=match, action=ir.Forward(cluster=name)) for name in names)
    certificate = ir.Certificate(name="s", chain_pem=b"chain", key_pem=bytes([dice.randint(0, 1)]))
    http = ir.Listener(
        name="http", addresses=(("::", 80),), tls=(), virtual_hosts=(ir.VirtualHost(host="", routes=routes),)
    )
    https = dataclasses.replace(http, name="https", tls=(ir.TlsServer(server_names=(), certificate="s"),))
    return ir.Ir(listeners=(http, https), clusters=clusters, certificates=(certificate,))


@pytest.mark.parametrize("seed", range(10))
def test_any_history(seed: int) -> None:
    dice = random.Random(seed)
    translator = Translator(Options())
    for _ in range(20):
        model = random_model(dice)
        assert translator.translate(model) == translate(model, Options())


def test_what_did_not_change_is_the_same_object() -> None:
    model = random_model(random.Random(1))
    translator = Translator(Options())
    first = translator.translate(model)
    again = translator.translate(dataclasses.replace(model))
    assert all(one is other for one, other in zip(first, again, strict=True))
