"""Where a real browser is, and what a page of ours may fetch in it."""

import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

INSIDE = ("file:", "data:")
"""The schemes that a page which opens offline may fetch."""
