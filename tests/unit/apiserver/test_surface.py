"""What others may import."""

import pilotage.apiserver


def test_the_package_offers_two_names() -> None:
    assert sorted(pilotage.apiserver.__all__) == ["Config", "run"]
