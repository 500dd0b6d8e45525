"""What a model computes (:mod:`.macs`) and how long that takes (:mod:`.timing`). Both look at a model from outside."""
