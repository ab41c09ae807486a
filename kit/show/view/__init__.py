"""A local page to walk through the images of a run: read-only, and for this machine alone."""
