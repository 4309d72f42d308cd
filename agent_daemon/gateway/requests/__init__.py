"""From the bodies of requests to what a worker is asked; a module for each endpoint. PURE."""
