from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from search_spaces import Architecture, Neck, Stage, Stem


def some_architecture() -> Architecture:
    return Architecture(
        family="yolov8",
        stem=Stem("Conv", 16),
        stages=(
            Stage("Conv", "C2f", 32, 1),
            Stage("GhostConv", "C2fGhost", 64, 2),
            Stage("Conv", "ShuffleV2", 128, 2),
            Stage("Conv", "C2f", 256, 1),
        ),
        neck=Neck("C2f", 1, (64, 128, 256)),
    )


def test_document_is_canonical() -> None:
    architecture = some_architecture()
    document = json.loads(architecture.document)
    assert architecture.document == json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert document["stages"][1] == {"downsample": "GhostConv", "block": "C2fGhost", "width": 64, "depth": 2}


def test_key_never_changes() -> None:
    # Databases hold keys: another value makes every recorded architecture a stranger.
    assert some_architecture().key == "f36c69fa31d93590"


@pytest.mark.parametrize("as_text", [True, False])
def test_document_round_trip(as_text: bool) -> None:
    architecture = some_architecture()
    document = architecture.document
    other = Architecture.from_document(document if as_text else json.loads(document))
    assert other == architecture
    assert hash(other) == hash(architecture)
    assert (other.key, other.document) == (architecture.key, document)


def test_order_and_spaces_of_a_document_do_not_matter() -> None:
    document = json.loads(some_architecture().document)
    shuffled = json.dumps(dict(reversed(document.items())), indent=2)
    assert Architecture.from_document(shuffled).key == some_architecture().key


def test_every_part_counts() -> None:
    one = some_architecture()
    p2, *others = one.stages
    different = [
        replace(one, family="other"),
        replace(one, stem=replace(one.stem, downsample="GhostConv")),
        replace(one, stem=replace(one.stem, width=24)),
        *(
            replace(one, stages=(replace(p2, **change), *others))
            for change in ({"downsample": "GhostConv"}, {"block": "Conv"}, {"width": 24}, {"depth": 2})
        ),
        replace(one, stages=(others[0], p2, *others[1:])),
        replace(one, neck=replace(one.neck, block="C2fGhost")),
        replace(one, neck=replace(one.neck, depth=2)),
        replace(one, neck=replace(one.neck, widths=(64, 256, 128))),
    ]
    everything = [one, *different]
    assert len({architecture.key for architecture in everything}) == len(everything)
    assert len(set(everything)) == len(everything)


def test_blocks_are_named_once_in_order_of_appearance() -> None:
    assert some_architecture().blocks == ("Conv", "C2f", "GhostConv", "C2fGhost", "ShuffleV2")


@pytest.mark.parametrize("text", ["", "yolov8n", "{", "[]", "{}", "5", "null", '"text"', '{"family":"yolov8"}'])
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an architecture|Expect"):
        Architecture.from_document(text)


def changed_document(path: str, value: Any) -> dict[str, Any]:
    """The document with one part set, or removed where the value is None."""
    document: dict[str, Any] = json.loads(some_architecture().document)
    *parents, last = re.split(r"\.", path)
    place: Any = document
    for parent in parents:
        place = place[int(parent) if parent.isdecimal() else parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


@pytest.mark.parametrize("path", ["family", "stem", "stages", "neck", "stem.width", "stages.2.depth", "neck.widths"])
def test_a_missing_part_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not an architecture"):
        Architecture.from_document(changed_document(path, None))


@pytest.mark.parametrize(
    "path",
    [
        "stem.colour",
        "stages.0.colour",
        "colour",
        "neck.colour",
    ],
)
def test_an_unknown_part_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not an architecture"):
        Architecture.from_document(changed_document(path, "red"))


@pytest.mark.parametrize(("path", "value"), [("stages", []), ("stages", [{}] * 5), ("neck.widths", [8, 16])])
def test_a_wrong_number_of_stages_or_widths_is_refused(path: str, value: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"unpack|not an architecture"):
        Architecture.from_document(changed_document(path, value))
