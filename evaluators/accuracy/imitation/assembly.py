"""A detector put together from the parent's own parts and entries of the library."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
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
        fill_part(network, parent, architecture, part, library)
    return network


def fill_part(
    network: DetectionModel, parent: ParentNetwork, architecture: Architecture, part: Part, library: Library
) -> int:
    """Give one part of a network its weights; how many there are.

    Raises:
        KeyError: If the entry is missing.
    """
    layers = [network.model[layer] for layer in part.layers]
    body, weights = joined(layers), weights_at(parent, architecture, part, library, layers)
    learned = {name: value.numel() for name, value in body.named_parameters() if value.requires_grad}
    if lacking := learned.keys() - weights.keys():
        raise KeyError(f"the entry for {part.place} lacks {', '.join(sorted(lacking))}")
    body.load_state_dict(weights, strict=False)  # statistics are measured
    return sum(learned.values())


def weights_at(
    parent: ParentNetwork, architecture: Architecture, part: Part, library: Library, layers: Sequence[nn.Module]
) -> dict[str, Tensor]:
    """The weights of one part, whose layers are these."""
    if parent.has(architecture, part):
        return parent.weights(part.place)
    entry = library.find(architecture, part)
    _, where = entry.form(architecture, part, layers)
    return {name: value.detach() for name, value in where.take(entry.weights).items()}
