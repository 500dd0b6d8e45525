"""Training: data that can be had anywhere, recipes, losses and the loop."""
