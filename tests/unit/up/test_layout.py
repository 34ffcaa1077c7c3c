"""Where clusters are kept, for whom."""

from pathlib import Path

from pilotage.up import make_layout


def test_root_uses_the_system_directories() -> None:
    layout = make_layout("dev", environment={}, user=0)
    assert layout.run == Path("/run/pilotage/dev")
    assert layout.data == Path("/var/lib/pilotage/dev")
    assert layout.cgroup == "pilotage/dev"


def test_a_user_has_directories_of_their_own() -> None:
    layout = make_layout("dev", environment={"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/u"}, user=7)
    assert layout.run == Path("/run/user/7/pilotage/dev")
    assert layout.data == Path("/home/u/.local/share/pilotage/dev")
    assert make_layout("dev", environment={"HOME": "/home/u"}, user=7).run == Path("/tmp/pilotage-7/dev")


def test_pilotage_home_holds_everything_and_shares_no_control_group() -> None:
    one = make_layout("dev", environment={"PILOTAGE_HOME": "/x/one"}, user=0)
    two = make_layout("dev", environment={"PILOTAGE_HOME": "/x/two"}, user=0)
    assert one.run == Path("/x/one/run/dev")
    assert one.data == Path("/x/one/data/dev")
    assert one.cgroup != two.cgroup


def test_a_chosen_data_directory_is_used_as_it_is() -> None:
    layout = make_layout("dev", environment={}, user=0, data_dir="/srv/dev")
    assert layout.data == Path("/srv/dev")
    assert layout.logs == Path("/srv/dev/logs")
