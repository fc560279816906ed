import re
from pathlib import Path

import watchnext
from watchnext import shapes

ANNOTATION = re.compile(r"\b(?:Bool|Float|Float32|Int|Int32|Int64|Num|UInt16)\[\s*[\w.]+,\s*\"([^\"]*)\"\s*,?\s*\]")


def axes_in(text: str) -> set[str]:
    words = {word for axes in ANNOTATION.findall(text) for word in axes.split()}
    return {word for word in words if word not in ("_", "...") and not word.isdigit() and "{" not in word}


def axes_in_source() -> set[str]:
    folder = Path(watchnext.__file__).parent
    return set().union(*(axes_in(file.read_text()) for file in folder.rglob("*.py")))


def test_the_names_in_annotations_are_found() -> None:
    text = 'def f(a: Float[Tensor, "batch dim"], b: Int[Array, "_"]) -> Int[\n    Array, "rows {length}"\n]: ...'
    assert axes_in(text) == {"batch", "dim", "rows"}


def test_every_axis_of_an_annotation_is_explained() -> None:
    assert axes_in_source() - set(shapes.AXES) == set()


def test_every_explained_axis_is_used() -> None:
    assert set(shapes.AXES) - axes_in_source() == set()


def test_everything_exported_exists() -> None:
    assert all(hasattr(shapes, name) for name in shapes.__all__)
