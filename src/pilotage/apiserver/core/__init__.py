"""What the API server decides, apart from how it moves bytes.

Purpose: routes, content negotiation, list options, selectors, stored form, table columns: values in, values out.
Inputs → outputs: a path, a header, a query or a document → a value the shell acts on.
Invariants: no socket, clock or storage; nothing here awaits.
Reading order: `routes`, `negotiation`, `options`, `record`, `selection`, `columns`.
Specifications: Kubernetes API concepts (https://kubernetes.io/docs/reference/using-api/api-concepts/).
"""
