"""The embedded cohorts: made data that look like the real ones, with a known best answer."""
