"""What an architecture costs and how good it is: complexity, latency on a target, accuracy after training.

Importing this package loads neither torch nor Ultralytics; evaluating does.
"""

from evaluators.evaluation import Complexity, Epoch, Failure, Latency
from evaluators.target import Target

__all__ = ["Complexity", "Epoch", "Failure", "Latency", "Target"]
