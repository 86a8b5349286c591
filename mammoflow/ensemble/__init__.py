"""From candidates' scores to a frozen ensemble, and the two-step baseline beside it."""
