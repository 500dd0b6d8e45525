"""How a network runs: eager, OpenVINO, CUDA graphs, ``torch.compile``, AOTInductor, or the fastest of those at hand.

``engine = Engine(network, "auto", regions=True)``, then ``answer = engine(images)``: its outputs, the tokens that image
tokens belong to, and the engine that answered.
"""

from .engine import ENGINES, Answer, Engine, candidates
from .engines import Engines

__all__ = ["ENGINES", "Answer", "Engine", "Engines", "candidates"]
