"""Conv: 3×3 convolution, batch normalisation, SiLU, as in every YOLO since v5; with stride 2 their downsampling.

Paper: YOLOv3: An Incremental Improvement, arXiv:1804.02767 (convolution, normalisation, activation).
Code: Ultralytics' own `Conv` (AGPL-3.0), used, not copied.
"""

from ultralytics.nn.modules import Conv

from search_spaces.registry import register_block

register_block(
    "Conv",
    paper="YOLOv3: An Incremental Improvement, arXiv:1804.02767",
    licence="AGPL-3.0 (Ultralytics)",
    roles=("stage", "downsample"),
    arguments=lambda place: (3, place.stride),
    depth="stacked",
    stock=True,
)(Conv)
