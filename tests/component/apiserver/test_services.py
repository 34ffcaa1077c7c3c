"""The `kubernetes` Service, and addresses for everybody else's."""

from pilotage.testing.wire import Http

SERVICES = "/api/v1/namespaces/default/services"


async def test_the_api_is_a_service_itself(http: Http) -> None:
    spec = (await http("GET", f"{SERVICES}/kubernetes")).body["spec"]
    assert (spec["clusterIP"], spec["ports"][0]["port"]) == ("10.96.0.1", 443)
    assert spec["ports"][0]["targetPort"] == int(http.server.url.rpartition(":")[2])


async def test_addresses_are_given_once_and_come_back(http: Http) -> None:
    seen = {"10.96.0.1"}
    for name in ("a", "b"):
        spec = (await http("POST", SERVICES, {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})).body[
            "spec"
        ]
        assert spec["clusterIP"].startswith("10.96.") and spec["clusterIP"] not in seen
        seen.add(spec["clusterIP"])
    taken = {"metadata": {"name": "c"}, "spec": {"clusterIP": spec["clusterIP"], "ports": [{"port": 80}]}}
    refused = await http("POST", SERVICES, taken)
    assert (refused.status, refused.reason) == (422, "Invalid")
    await http("DELETE", f"{SERVICES}/b")
    assert (await http("POST", SERVICES, taken)).status == 201


async def test_a_dry_run_takes_nothing(http: Http) -> None:
    body = {"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30500}]}}
    for _ in range(2):
        assert (await http("POST", f"{SERVICES}?dryRun=All", body)).status == 201
    assert (await http("POST", SERVICES, body)).status == 201
    body["metadata"] = {"name": "b"}
    assert (await http("POST", SERVICES, body)).status == 422


async def test_a_name_that_is_taken_gives_its_port_back(http: Http) -> None:
    await http("POST", SERVICES, {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}})
    spec = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30500}]}
    assert (await http("POST", SERVICES, {"metadata": {"name": "a"}, "spec": spec})).status == 409
    assert (await http("POST", SERVICES, {"metadata": {"name": "b"}, "spec": spec})).status == 201
