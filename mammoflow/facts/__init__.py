"""The facts that travel between packages: what a stage finds, what a run records, what reports say.

Each is a frozen dataclass with one name for one quantity. `codec` reads and writes all of them. A module here imports
the standard library and `codec` alone, so every package may use it.
"""
