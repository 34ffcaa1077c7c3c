"""The commands, one file a group: `cluster` (its life), `look` (what is there), `image`, `demo`, `components`."""
