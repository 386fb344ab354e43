"""What a program does with searches: check what was given, make the configuration, open the search, run it.

The command line calls the same. Nothing here prints or looks at options; what goes wrong is a `UserError` of one line.
Ultralytics reads its environment when it is first imported, which none of this does before it is called: a program of
its own begins with `os.environ.update(ultralytics_environment())`, as the command line does.
"""

from nas_yolo.application.configuration import make_config
from nas_yolo.application.creation import create_search, free_name
from nas_yolo.application.outcome import Best, write_best
from nas_yolo.application.run import OpenSearch, open_search, run_search

__all__ = ["Best", "OpenSearch", "create_search", "free_name", "make_config", "open_search", "run_search", "write_best"]
