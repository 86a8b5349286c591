"""The search over top layers: candidates, packs, rungs, and its record. Only `run` and what it calls need Ray."""

PICTURE = "search.png"
"""File of a search's artefact that shows its candidates at a glance (`charts`)."""
