"""A detector put together from the parent's own parts and entries of the library."""

from __future__ import annotations

from torch import Tensor
from ultralytics.nn.tasks import DetectionModel

from evaluators.accuracy.imitation.body import joined
from evaluators.accuracy.imitation.library import Library
from evaluators.accuracy.imitation.parent import ParentNetwork
from search_spaces import hook
from search_spaces.architecture import Architecture
from search_spaces.parts import Part, parts_of


def assemble(parent: ParentNetwork, architecture: Architecture, library: Library) -> DetectionModel:
    """A detector with weights from the library, and the parent's where it has just the same.

    Its statistics of batch normalisation are to be measured before it is used.

    Args:
        parent: That was imitated.
        architecture: What to build.
        library: With entries for all that the parent does not have.

    Raises:
        KeyError: If an entry is missing.
    """
    network = hook.build(hook.model_file(architecture, parent.classes))
    for part in parts_of(architecture).values():
        body = joined([network.model[layer] for layer in part.layers])
        weights = weights_at(parent, architecture, part, library)
        if lacking := {name for name, value in body.named_parameters() if value.requires_grad} - weights.keys():
            raise KeyError(f"the entry for {part.place} lacks {', '.join(sorted(lacking))}")
        body.load_state_dict(weights, strict=False)  # statistics are measured
    return network


def weights_at(parent: ParentNetwork, architecture: Architecture, part: Part, library: Library) -> dict[str, Tensor]:
    """The weights of one part."""
    if parent.has(architecture, part):
        return parent.weights(part.place)
    entry = library.find(architecture, part)
    _, where = entry.form(architecture, part)
    return {name: value.detach() for name, value in where.take(entry.weights).items()}
