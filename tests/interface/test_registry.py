"""The list of variants: names, single files and installed packages."""

import sys
import threading
from importlib.metadata import EntryPoint

import pytest

import twolayer as tl
from twolayer.checking import cases
from twolayer.registry import Registry, add_file

GROUP = "twolayer.variants"
NET, X, Y, THETA = cases.problem(tl.Network(), tl.Shape(7, 3, 4, 2), "float32")[1:]


def made_variant(name="mine", **given):
    return tl.Variant(name, "cpu", "a test's own", tl.variants.get("numpy").make, **given)


def test_what_cannot_run_says_why():
    variant = made_variant(requires=("numpy", "no_such_package"))
    assert variant.unavailable() == "needs the package no_such_package"
    with pytest.raises(
        RuntimeError, match=r"^variant mine cannot run here: needs the package no_such_package$"
    ):
        variant.plan(NET, X, Y, THETA)


def test_registry_refuses_a_name_that_is_taken():
    registry = Registry(tl.Variant, [made_variant()])
    with pytest.raises(ValueError, match=r"^variant: the name 'mine' is taken$"):
        registry.add(made_variant())
    with pytest.raises(TypeError, match=r"^variant: expected a twolayer.Variant, got str$"):
        registry.add("mine")


def test_a_thread_that_asks_while_another_one_adds_gets_the_whole_list():
    begun, may_end = threading.Event(), threading.Event()

    def more():
        assert registry.names() == ["first"]  # who adds may ask for what is there
        begun.set()
        assert may_end.wait(60)
        return [made_variant("late")]

    registry = Registry(tl.Variant, [made_variant("first")], [more])
    found = []
    threads = [threading.Thread(target=lambda: found.append(registry.names())) for _ in range(2)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    threads[1].join(0.1)
    assert found == []
    may_end.set()
    for thread in threads:
        thread.join()
    assert found == [["first", "late"]] * 2


def test_a_name_that_is_taken_breaks_the_list_once():
    late = [made_variant("late"), made_variant("first"), made_variant("last")]
    registry = Registry(tl.Variant, [made_variant("first")], [lambda: late])
    with pytest.raises(ValueError, match="the name 'first' is taken"):
        registry.names()
    assert registry.names() == ["first", "late"]


def test_what_could_not_be_added_is_tried_again():
    answers = [KeyboardInterrupt(), [made_variant("late")]]

    def more():
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    registry = Registry(tl.Variant, [made_variant("first")], [lambda: [made_variant("own")], more])
    with pytest.raises(KeyboardInterrupt):
        registry.names()
    assert registry.names() == ["first", "own", "late"]


FILE = """
from __future__ import annotations
from dataclasses import dataclass
import twolayer as tl

@dataclass
class Settings:
    size: int = 3

base = tl.variants.get("numpy")

class Mine(base.make):
    pass

VARIANT = tl.Variant("mine", "cpu", "a test's own", Mine)
also = VARIANT
"""


def test_a_file_of_ones_own_is_registered(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    registry = Registry(tl.Variant, tl.variants.REGISTRY)
    (variant,) = add_file(path, [registry])
    assert registry.names()[-1] == "mine"
    assert registry.get("mine") is variant
    assert variant.plan(NET, X, Y, THETA).step(0.1) == tl.variants.get("numpy").plan(
        NET, X, Y, THETA
    ).step(0.1)
    with pytest.raises(ValueError, match=r"^variant: the name 'mine' is taken$"):
        add_file(path, [registry])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"variant file: .*mine\.py defines none of Variant at its top level"),
        ("import no_such", r"variant file: .*mine\.py failed with ModuleNotFoundError: No module"),
        ("def f(:", r"variant file: .*mine\.py failed with SyntaxError: "),
        ("raise OSError('no')", r"variant file: .*mine\.py failed with OSError: no"),
    ],
)
def test_wrong_variant_files(text, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^" + message):
        add_file(path, [Registry(tl.Variant)])


@pytest.mark.parametrize("name", ["missing.py", "mine.txt", "folder.py"])
def test_variant_files_that_are_none(name, tmp_path):
    (tmp_path / "mine.txt").write_text(FILE)
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(
        ValueError, match=r"^variant file: expected an existing .py file, got '.*'$"
    ):
        add_file(tmp_path / name, [Registry(tl.Variant)])


def test_a_file_is_registered_whole_or_not_at_all(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE + 'OTHER = tl.Variant("numpy", "cpu", "takes a name", Mine)\n')
    registry = Registry(tl.Variant, tl.variants.REGISTRY)
    before = registry.names()
    with pytest.raises(ValueError, match=r"^variant: the name 'numpy' is taken$"):
        add_file(path, [registry])
    assert registry.names() == before


@pytest.fixture
def entry_points(tmp_path, monkeypatch):
    """entry_points(NAME=source line, …): what installed packages offer under the group's name."""

    def offer(**lines):
        text = "\n".join(f"{name} = {line}" for name, line in lines.items() if line)
        source = f"import twolayer as tl\nEngine = tl.variants.get('numpy').make\n{text}\n"
        (tmp_path / "offering.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        points = [EntryPoint(name, f"offering:{name}", GROUP) for name in lines]

        def found(group):
            assert group == GROUP
            return points

        monkeypatch.setattr("importlib.metadata.entry_points", found)

    yield offer

    sys.modules.pop("offering", None)


def test_variants_of_installed_packages_are_found(entry_points):
    entry_points(MINE="tl.Variant('offered', 'cpu', 'by a package', Engine)")
    registry = Registry(tl.Variant, tl.variants.REGISTRY, group=GROUP)
    assert registry.names()[-1] == "offered"
    assert Registry(tl.Variant, group=GROUP).get("offered").summary == "by a package"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tl.Variant('numpy', 'cpu', '', Engine)", "variant: the name 'numpy' is taken"),
        ("42", r"variant: expected a twolayer\.Variant, got int"),
        ("", "module 'offering' has no attribute 'WRONG'"),
    ],
)
def test_a_wrong_variant_of_a_package_is_left_out(entry_points, line, message):
    entry_points(WRONG=line)
    registry = Registry(tl.Variant, tl.variants.REGISTRY, group=GROUP)
    with pytest.warns(UserWarning, match=f"variant WRONG of offering:WRONG is left out: {message}"):
        names = registry.names()
    assert names == list(dict.fromkeys(names))
    assert set(names) == set(tl.variants.names())
