"""What other packages may use."""

from pilotage import controllers, scheduler


def test_the_surface_is_a_configuration_and_a_function() -> None:
    assert controllers.__all__ == ["Config", "run"]
    assert scheduler.__all__ == ["Config", "run"]
