"""C2f: cross-stage partial block of YOLOv8 with every unit's output concatenated.

Paper: CSPNet: A New Backbone that can Enhance Learning Capability of CNN, arXiv:1911.11929.
Code: Ultralytics' own `C2f` (AGPL-3.0), used, not copied.
"""

from ultralytics.nn.modules import C2f

from search_spaces.registry import register_block

register_block(
    "C2f",
    paper="CSPNet, arXiv:1911.11929 (YOLOv8's form)",
    licence="AGPL-3.0 (Ultralytics)",
    arguments=(True,),
    stock=True,
)(C2f)
