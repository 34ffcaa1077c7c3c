"""The pure half of `network`: netlink messages as bytes, built and parsed without a socket.

Read `message` first (framing, rtnetlink(7)), then `rtnetlink` (links, addresses, routes) and `conntrack` (flows).
"""
