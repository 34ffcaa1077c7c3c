"""Pure: Services and EndpointSlices in, plans and differences out. Read model,
topology, layout, fragment, plan, flows, drift."""
