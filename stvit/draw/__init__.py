"""Drawing token regions, objects and classes on pictures."""
