"""From a file, however big or odd, to a bag of tiles."""
