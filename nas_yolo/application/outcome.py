"""What a search leaves for its user: the best design as a file to train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evaluators.dataset import write_data_file
from nas_yolo.config import SearchConfig
from nas_yolo.design_files import design_of, write_yaml
from nas_yolo.results import best_trial
from storage import Repository, Search, Trial


@dataclass(frozen=True)
class Best:
    """The best design for a target.

    Attributes:
        trial: That tried it.
        model: Its model YAML.
        data: A data YAML of the images that were used, which means the same from any folder.
    """

    trial: Trial
    model: Path
    data: Path


def write_best(repository: Repository, search: Search, target: str | None = None) -> Best:
    """Write the best design of a search into its folder.

    Args:
        repository: Where the search is stored.
        search: The search.
        target: For which; the first of the search's if not said.

    Raises:
        NoSuchTrialError: If there is none yet.
    """
    config, folder = SearchConfig.from_document(search.config), repository.run_folder(search)
    first = config.targets[0][0].name
    target = target or first
    best = best_trial(repository.trials(search), config, target=target)
    model = folder / ("best.yaml" if target == first else f"best-{target}.yaml")
    write_yaml(design_of(search.name, config, best), model)
    return Best(best, model, write_data_file(config.dataset, folder))
