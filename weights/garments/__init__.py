"""The garments that the bundled models know: Fashion-MNIST composed with photographs, every label exact.

:mod:`.sources` says where the garments come from; the photographs may be any folder of pictures.
``python -m weights.garments preview`` shows the samples, ``recipes/`` holds the recipes to train on them.
"""
