"""What can be built: blocks, families of detectors, architectures and the spaces they form.

Importing this package loads neither torch nor Ultralytics; building a network does.
"""

from search_spaces.architecture import Architecture, Level, Neck, Stage, Stem
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace, SpaceError

__all__ = ["Architecture", "Level", "Neck", "SearchSpace", "SpaceError", "Stage", "Stem", "UserError"]
