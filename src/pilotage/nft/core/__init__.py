"""The values of nft: data types, expressions, objects, wire form, a rule set in memory, a tracer."""
