"""Ray clusters: joining one, what its nodes hold, metrics for Prometheus."""
