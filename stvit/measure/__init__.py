"""What a model costs, seen from outside: multiply-adds (:mod:`.macs`), memory (:mod:`.memory`), time and the one
definition of a speed-up (:mod:`.timing`), and comparisons of several models (:mod:`.compare`)."""
