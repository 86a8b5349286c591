"""The results page: a static site of every finished run in a lake and every model in its registry."""
