"""Published and bundled weights: records, downloads, verification."""
