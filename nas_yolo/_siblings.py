"""Our other three packages have everyday names; a stranger's package of the same name must not be taken for ours."""

from importlib.util import find_spec
from pathlib import Path

SIBLINGS = ("search_spaces", "evaluators", "storage")


def refuse_foreign_siblings() -> None:
    """Check that each sibling lies beside this package.

    Raises:
        ImportError: If Python would import another one.
    """
    home = Path(__file__).resolve().parent.parent
    for name in SIBLINGS:
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found != home / name / "__init__.py":
            raise ImportError(
                f"nas-yolo needs its own package {name!r} from {home}, but Python finds {found or 'none'}. "
                "Rename that one, or start from another directory."
            )
