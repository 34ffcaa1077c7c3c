"""What others may import."""

import pilotage.apiserver


def test_the_package_offers_a_server_and_copies_of_its_store() -> None:
    assert sorted(pilotage.apiserver.__all__) == ["Config", "backup", "restore", "run"]
