"""From pixels to a result."""
