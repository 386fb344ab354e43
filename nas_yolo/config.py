"""What a search was asked to do: everything that its result depends on, as it is stored with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from evaluators.dataset import Dataset
from evaluators.latency import read_identity
from evaluators.target import Target, timed_text
from nas_yolo import __version__
from nas_yolo.budget import Budget, parse_budget
from nas_yolo.fidelities import Fidelity, Rung, rungs
from nas_yolo.objective import Limit, parse_limit
from search_spaces.architecture import Architecture
from search_spaces.image_size import ImageSize, chosen_size
from search_spaces.presets import known_designs, presets
from search_spaces.scaled import scaled_designs
from search_spaces.space import SearchSpace

Weights = Literal["scratch", "inherited", "library"]
DEFAULT_WEIGHTS: Weights = "library"
MIN_TRIALS = 3  # of a budget in trials, to train the stock model first: with fewer there is next to nothing to help


@dataclass(frozen=True)
class SearchConfig:
    """One search.

    Attributes:
        dataset: Checked images and labels.
        space: Where to search.
        targets: Devices, each with the fingerprint that it had when the search began.
        imgsz: Size of the images, for training and latency, where the space does not choose it.
        epochs: Of a full training.
        rungs: Epochs at which trainings pause, ascending, the last of them `epochs`; empty: the usual ones.
        budgets: The first to run out ends the search.
        limits: Hard limits on a candidate.
        sampler: Name.
        seed: Of everything random.
        training: Ultralytics training arguments.
        runner: `ray` or `local`.
        workers: Trainings at once; None: as many as there are cores or GPUs.
        gpus_per_trial: GPUs, or a share of one, for each training.
        packing: What `gpus_per_trial` was found by (`evaluators.packing.Packing.document`); empty if it is to be found
            before the first training on a GPU, None if it was given.
        warm_start: Whether earlier searches in the same database inform it.
        identities: What each target said of itself then, by name: for saying what changed.
        weights: What trainings begin with: random weights, those of a trained network, or of blocks that learned to
            imitate the stock model, trained first (`library`).
        pretrained: A checkpoint, absolute, that inherited weights are taken from, and that the parent of a library
            begins with; None: the stock model, trained first.
        pretrained_sha256: Of its content.
        trial_time_s: Seconds after which a training is ended while nothing tells how long it should take; None: never.
        artifacts: Where checkpoints are kept, a folder or a URL; None: in the search's own folder.
        repeats: Finalists trained once more to the end with another seed; None: as the budget allows.
    """

    dataset: Dataset
    space: SearchSpace
    targets: tuple[tuple[Target, str], ...]
    imgsz: ImageSize
    epochs: int
    budgets: tuple[Budget, ...]
    rungs: tuple[int, ...] = ()
    limits: tuple[Limit, ...] = ()
    sampler: str = "frontier"
    seed: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    runner: str = "ray"
    workers: int | None = None
    gpus_per_trial: float = 1.0
    packing: dict[str, Any] | None = None
    warm_start: bool = True
    repeats: int | None = None
    weights: Weights = "scratch"
    pretrained: str | None = None
    pretrained_sha256: str | None = None
    trial_time_s: float | None = None
    artifacts: str | None = None
    identities: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def image_sizes(self) -> tuple[ImageSize, ...]:
        """All sizes at which something may be measured: the space's if it chooses them, and `imgsz`."""
        return tuple(sorted({self.imgsz, *map(ImageSize.parse, self.space.choices.get("imgsz", ()))}))

    @property
    def timed(self) -> str:
        """What latencies are of."""
        return timed_text(self.targets[0][0])

    @property
    def trains_parent(self) -> bool:
        """Whether the stock model is trained first, for the weights that others begin with."""
        large = all(budget.limit >= MIN_TRIALS for budget in self.budgets if budget.kind == "trials")
        return large and (self.weights == "library" or (self.weights == "inherited" and self.pretrained is None))

    @cached_property
    def fidelities(self) -> tuple[Fidelity, ...]:
        """What a design is evaluated at, cheapest first; the last is the full training, and only it gives results."""
        return tuple(map(Rung, self.rungs)) or rungs(self.epochs)

    @cached_property
    def known_designs(self) -> dict[str, Architecture]:
        """What is tried first, by preset: the model to beat, then those that lie in the space."""
        return known_designs(self.space, self.space.baseline, self.imgsz)

    @cached_property
    def scaled_designs(self) -> dict[str, Architecture]:
        """The model to beat in other widths and depths, by name; what is tried as a known design is left out."""
        known = set(self.known_designs.values())
        scaled = scaled_designs(self.space, self.known_designs[self.space.baseline])
        return {name: design for name, design in scaled.items() if design not in known}

    @cached_property
    def opponents(self) -> dict[str, str]:
        """What results are compared with: names by the keys of architectures, the model to beat first.

        These are that, the other stock models if it is one, and what it is in other widths and depths.
        """
        stock = self.space.baseline
        models = {preset.architecture for name, preset in presets().items() if "-" not in name}
        others = {
            name: design
            for name, design in self.known_designs.items()
            if name == stock or (not self.space.model and replace(design, activation=None, imgsz=None) in models)
        }
        return {design.key: name for name, design in (others | self.scaled_designs).items()}

    def imgsz_of(self, architecture: Architecture) -> ImageSize:
        """The size at which an architecture is trained and measured."""
        return chosen_size(architecture, self.imgsz)

    def document(self) -> dict[str, Any]:
        """Plain data for `from_document`."""
        return {
            "version": __version__,
            "dataset": self.dataset.document(),
            "space": self.space.document(),
            "targets": [
                asdict(target) | {"fingerprint": fingerprint, "identity": self.identities.get(target.name, {})}
                for target, fingerprint in self.targets
            ],
            "imgsz": self.imgsz.plain,
            "epochs": self.epochs,
            "rungs": list(self.rungs),
            "budgets": [budget.text for budget in self.budgets],
            "limits": [str(limit) for limit in self.limits],
            "sampler": self.sampler,
            "seed": self.seed,
            "training": self.training,
            "runner": self.runner,
            "workers": self.workers,
            "gpus_per_trial": self.gpus_per_trial,
            "packing": self.packing,
            "warm_start": self.warm_start,
            "repeats": self.repeats,
            "weights": self.weights,
            "pretrained": self.pretrained,
            "pretrained_sha256": self.pretrained_sha256,
            "trial_time_s": self.trial_time_s,
            "artifacts": self.artifacts,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> SearchConfig:
        """Read back what `document` wrote."""
        rest = {key: document[key] for key in ("epochs", "sampler", "seed", "training", "runner")}
        return cls(
            dataset=_dataset(document["dataset"], document["training"]),
            space=SearchSpace.from_document(document["space"]),
            targets=tuple(
                (
                    Target(**{k: v for k, v in target.items() if k not in ("fingerprint", "identity")}),
                    target["fingerprint"],
                )
                for target in document["targets"]
            ),
            identities={target["name"]: read_identity(target.get("identity", {})) for target in document["targets"]},
            imgsz=ImageSize.parse(document["imgsz"]),
            rungs=tuple(document.get("rungs", ())),
            budgets=tuple(map(parse_budget, document["budgets"])),
            limits=tuple(map(parse_limit, document["limits"])),
            workers=document["workers"],
            gpus_per_trial=document["gpus_per_trial"],
            packing=document.get("packing"),
            warm_start=document.get("warm_start", False),  # there was none
            repeats=document.get("repeats"),  # searches of before there were any have no such key
            weights=document.get("weights", "scratch"),  # nor these: they were trained so
            pretrained=document.get("pretrained"),
            pretrained_sha256=document.get("pretrained_sha256"),
            trial_time_s=document.get("trial_time_s"),
            artifacts=document.get("artifacts"),
            **rest,
        )


def _dataset(document: dict[str, Any], training: dict[str, Any]) -> Dataset:
    """Searches of before the data set said which boxes count have it in their training arguments only."""
    if "single_cls" in document:
        return Dataset.from_document(document)
    classes = training.get("classes")
    meaning = {
        "single_cls": bool(training.get("single_cls")),
        "classes": [classes] if isinstance(classes, int) else classes,
    }
    return Dataset.from_document(document | meaning)
