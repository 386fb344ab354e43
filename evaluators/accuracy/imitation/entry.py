"""One block at one place: weights for its largest form, of which those of narrower and shallower ones are slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from evaluators.accuracy.channels import Channels, Numbers
from evaluators.accuracy.imitation.body import Body, importance
from evaluators.accuracy.imitation.distance import feature_error, head_error
from evaluators.accuracy.imitation.parent import Interfaces, Seen
from evaluators.accuracy.imitation.slices import Slice, find_slice
from evaluators.accuracy.inheritance import Donor, inherit_part
from search_spaces.architecture import Architecture
from search_spaces.parts import Part, parts_of

FORMS_KEPT = 32  # more than one is trained in; designs that are scored may have any


class Entry:
    """Weights that imitate the parent at one place, with one block.

    Args:
        interfaces: Of the parent.
        place: Where.
        largest: An architecture with the block there, as wide and deep as the space allows.
        seed: Of what is random.

    Attributes:
        weights: Of the largest form, by name; these are trained.
        importance: Of its channels, as it began: which of them narrower forms have.

    Raises:
        ValueError: If the parent is of another family or activation.
    """

    def __init__(self, interfaces: Interfaces, place: str, largest: Architecture, seed: int):
        self.interfaces, self.place, self.largest, self.seed = interfaces, place, largest, seed
        self.part = parts_of(largest)[place]
        self._classes = interfaces.parent.classes
        if not interfaces.parent.is_like(largest):
            raise ValueError("blocks imitate a parent of their own family and activation")
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self._body = Body(largest, self.part, self._classes)
        self.weights = {name: value.clone().requires_grad_() for name, value in self._body.take_initial().items()}
        self._whole = self._body, Slice.whole(self._body)
        self._known: dict[Any, tuple[Body, Slice]] = {}  # the one that was used last comes last
        if self._is_parents_block:
            self._begin_as_parent()
        self.importance: Mapping[int, float] = importance(self._body.channels, self._detached)

    def load(self, weights: Mapping[str, Tensor], known: Mapping[int, float]) -> None:
        """Take weights that an entry like this one had, and the importance of its channels."""
        self.importance = known
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(weights[name])

    def form(
        self, architecture: Architecture, part: Part, layers: Sequence[nn.Module] | None = None
    ) -> tuple[Body, Slice]:
        """A part of this block, and where its weights lie in the largest one's.

        Args:
            architecture: Has the part.
            part: The part.
            layers: Of a network that has it: they are copied rather than built where that is faster.
        """
        if part.shape == self.part.shape:
            return self._whole
        found = self._known.pop(part.shape, None) or self._make(architecture, part, layers)
        self._known[part.shape] = found
        if len(self._known) > FORMS_KEPT:
            del self._known[next(iter(self._known))]
        return found

    def error(self, architecture: Architecture, seen: Mapping[str, Seen]) -> Tensor:
        """How far a form's outputs are from the parent's, as a share of their variance: 0 is the same, 1 a constant.

        Args:
            architecture: Has the form at this place.
            seen: What the parent computes at each of its places. Where it has nothing, what comes in shall go out.
        """
        part = parts_of(architecture)[self.place]
        body, where = self.form(architecture, part)
        if (here := seen.get(self.place)) is None:
            before = seen[part.sources[0]].outputs
            here = Seen(before[0], before)
        mine = body.run(where.take(self.weights), self.interfaces.reads(part, here.inputs))
        theirs = self.interfaces.gives(part, here.outputs)
        return head_error(mine, theirs) if part.is_head else feature_error(mine[0], theirs[0])

    @property
    def _detached(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.weights.items()}

    def _make(self, architecture: Architecture, part: Part, layers: Sequence[nn.Module] | None) -> tuple[Body, Slice]:
        if part.width > self.part.width or any(a > b for a, b in zip(part.in_widths, self.part.in_widths, strict=True)):
            raise ValueError(
                f"{self.place}: a form of {part.in_widths} to {part.width} channels is wider than the entry"
            )
        with torch.random.fork_rng(devices=()):
            body = Body(architecture, part, self._classes, deepcopy(layers) if part.is_head else None)
        body.take_initial()
        return body, find_slice(body, self._body, *self._positions(part), self.importance)

    def _positions(self, part: Part) -> tuple[list[Numbers], Numbers | None]:
        ends = zip(part.sources, part.in_widths, self.part.in_widths, strict=True)
        inputs = [self.interfaces.within(source, width, largest) for source, width, largest in ends]
        return inputs, None if part.is_head else self.interfaces.within(self.place, part.width, self.part.width)

    @cached_property
    def _is_parents_block(self) -> bool:
        theirs = self.interfaces.parent.parts.get(self.place)
        return theirs is not None and {row[2] for row in theirs.rows} == {row[2] for row in self.part.rows}

    def _begin_as_parent(self) -> None:
        """With the parent's own weights, wider and deeper as far as that does not change what they compute."""
        parent, theirs = self.interfaces.parent, self.interfaces.parent.parts[self.place]
        body, known = parent.body(self.place), dict[int, float]()
        ends = list(zip(theirs.sources, body.channels.inputs, strict=True))
        if body.channels.outputs is not None:
            ends.append((self.place, body.channels.outputs))
        for place, numbers in ends:
            of = self.interfaces.importance[parent.interface(place)]
            known.update(zip(numbers.tolist(), of.tolist(), strict=True))
        trained = {name: parent.weights(self.place)[name] for name in body.shapes}
        inherit_part(_donor(self._detached, self._body.channels), _donor(trained, body.channels), known)


def _donor(weights: dict[str, Tensor], channels: Channels) -> Donor:
    """With a name for each input and the output, so that channels of one are not taken for those of another."""
    ends = {f"input {number}": numbers for number, numbers in enumerate(channels.inputs)}
    if channels.outputs is not None:
        ends["output"] = channels.outputs
    marks = {name: torch.zeros(len(numbers)) for name, numbers in ends.items()}
    learned = {place: numbers for place, numbers in channels.of.items() if place[0] in weights}
    of = {**learned, **{(name, 0): numbers for name, numbers in ends.items()}}
    found = Channels(of, channels.fixed, channels.residual & weights.keys())
    return Donor({**weights, **marks}, frozenset(weights), found)
