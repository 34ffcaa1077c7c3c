"""From the user's API to Envoy's, in values: objects → IR and problems (`ingress`), IR → xDS (`translate`)."""
