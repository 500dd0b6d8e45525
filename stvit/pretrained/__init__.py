"""Published and trained weights: what is known of them, where they are, and their verified files.

``records``      ``record(name)`` -> the one record of a model: its timm pretrained config, sha256, published figures
``model_cards``  ``load_card(path)`` -> a trained model and its card, the JSON file beside its weights
``resolve``      ``resolve(record)``, ``resolve_card(card)`` -> the verified file
``tensors``      ``resolve_tensors(record)`` -> the same, of a pickled checkpoint its tensors alone
``build``        makes every ``pretrained=True`` go through ``resolve``
``hub``          the download, and ``WeightsUnavailable`` with one message for each way in which it fails
"""
