"""The only package that imports Ray: pure functions from below, spread over a cluster."""
