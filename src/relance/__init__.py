"""relance."""
