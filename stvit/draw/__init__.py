"""Drawing of token regions, objects and classes, on RGB pixels and on the planes of a clip's pictures."""
