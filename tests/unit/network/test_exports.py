"""The surface other packages may rely on."""

import pilotage.network


def test_the_surface_is_what_it_says() -> None:
    assert pilotage.network.__all__ == [
        "ETHERTYPE_ARP",
        "ETHERTYPE_IPV6",
        "TCP_CLOSE",
        "TCP_SYN_SENT",
        "Attachment",
        "FakeWiring",
        "Flow",
        "KernelWiring",
        "NamespaceGone",
        "NetworkError",
        "Route",
        "Wiring",
        "forget_flows",
        "interface_mac",
        "open_packet_socket",
    ]
