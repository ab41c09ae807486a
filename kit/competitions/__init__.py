"""The declared competitions: nothing but the task."""
