"""The pure part: which address a Service has, which node speaks for it, what an ARP frame says."""
