"""What to try next: the search loop, its sampler, scheduler and budget, and the ways in (command line, Ray)."""

from nas_yolo._siblings import refuse_foreign_siblings

refuse_foreign_siblings()

__version__ = "0.1.0"
