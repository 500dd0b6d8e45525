"""One family of models a file, each registered with timm."""
