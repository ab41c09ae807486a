"""The sections of the report, a module each: `section` gives what the template shows, or None."""
