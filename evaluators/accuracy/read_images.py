"""The images of a split with their labels, read from the user's files by Ultralytics' own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluators import user_files
from evaluators.accuracy.fitted import FittedImages
from evaluators.dataset import Dataset, DatasetError

user_files.install()


class ReadImages(FittedImages):
    """The images of a split that the data set names, with labels from their files as Ultralytics reads them.

    Args:
        dataset: Which.
        split: `train` or `val`.
        arguments: Of `FittedImages`.

    Raises:
        DatasetError: If an image cannot be used that could be.
    """

    def __init__(self, dataset: Dataset, split: str, **arguments: Any):
        self._named = dataset.images(split)
        super().__init__(
            img_path=list(getattr(dataset, split)),
            data=data_document(dataset),
            single_cls=dataset.single_cls,
            classes=None if dataset.classes is None else list(dataset.classes),
            **arguments,
        )

    def get_img_files(self, img_path: Any) -> list[str]:
        """Those that the data set names."""
        return list(self._named)

    def _load_or_scan_cache(self, cache_path: Path, cache_hash: str) -> tuple[dict[str, Any], bool]:
        """Always from the files: a cache knows them by sizes and times only."""
        return self.cache_labels(cache_path), False

    def get_labels(self) -> list[dict[str, Any]]:
        """One for each image."""
        labels: list[dict[str, Any]] = super().get_labels()
        if len(labels) != len(self._named):
            lost = sorted(set(self._named) - set(self.im_files))
            raise DatasetError(f"{len(lost)} images cannot be used any more, e.g. {lost[0]}")
        return labels


def data_document(dataset: Dataset) -> dict[str, Any]:
    """What Ultralytics' own check of the data file would return."""
    return {
        "train": list(dataset.train),
        "val": list(dataset.val),
        "nc": len(dataset.names),
        "names": dict(enumerate(dataset.names)),
        "channels": 3,
        "yaml_file": dataset.file,
        **({"kpt_shape": list(dataset.kpt_shape)} if dataset.kpt_shape else {}),
    }
