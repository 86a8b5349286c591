"""The report of a run, the page of an ingest, and the tables they share."""
