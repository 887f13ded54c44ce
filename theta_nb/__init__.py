"""theta-nb: git for the inside of model checkpoints, made for notebooks."""

from theta_nb.errors import ThetaError

__all__ = ["ThetaError", "__version__"]

__version__ = "0.1.0"
