"""The stages: what each needs, where it lies, how it is built, and what runs of several configs give together."""
