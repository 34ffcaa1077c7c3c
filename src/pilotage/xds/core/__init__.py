"""The protocol without the wire: resources, snapshots and the state of one stream."""
