"""Figures follow their page's colours, and colour-blind people can tell those apart."""

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from twolayer.showing.plot import plot, theme
from twolayer.showing.plot.style import COLOURS, canvas

pytest.importorskip("matplotlib")

# What each kind of colour blindness makes of linear RGB, at full severity.
# Source: Machado, Oliveira and Fernandes 2009, doi:10.1109/TVCG.2009.113, table 1.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
LIGHT = [light for name, light, _ in theme.COLOURS if re.fullmatch(r"v\d", name)]
DARK = [dark for name, _, dark in theme.COLOURS if re.fullmatch(r"v\d", name)]
APART = 10  # in CIELAB, where about 2.3 is just noticeable


def linear(colour):
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def cielab(rgb):
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.asarray(to_xyz) @ rgb / [0.9505, 1, 1.089])  # none is near black but black
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def drawn():
    figure, (panel,) = canvas(3, 2, "A title", "")
    panel.plot([1, 2], [1, 2], color=COLOURS[0], marker="o", label="one")
    panel.legend(frameon=False)
    return figure


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_can_be_told_apart(palette, kind):
    seen = [cielab(np.clip(BLINDNESS[kind] @ linear(colour), 0, 1)) for colour in palette]
    for (i, a), (j, b) in itertools.combinations(enumerate(seen), 2):
        assert np.linalg.norm(a - b) >= APART, (palette[i], palette[j])


def test_every_colour_of_a_figure_in_a_page_is_a_variable():
    text = theme.inline(drawn, "a", "b")
    assert not re.search(r"(fill|stroke): #", text)
    used = set(re.findall(r"var\(--(\w+)\)", text))
    assert used <= {name for name, _, _ in theme.COLOURS}
    assert {"paper", "ink", "v0"} <= used


def follows_the_ground(text):
    """Every colour of a file has another on dark grounds, and none is in a bitmap."""
    used = set(re.findall(r"(?:fill|stroke): #\w+", text))
    assert len(used) > 3
    for colour in used:
        assert f'[style*="{colour}"]' in text, colour
    assert "<image" not in text


def test_every_colour_of_a_file_has_another_on_dark_grounds():
    follows_the_ground(theme.standalone(drawn))


SVGS = sorted((Path(__file__).parents[2] / "docs").rglob("*.svg"))


@pytest.mark.parametrize("path", SVGS, ids=lambda path: path.name)
def test_pictures_show_in_any_viewer_and_on_dark_grounds(path):
    text = path.read_text(encoding="utf-8")
    assert ET.fromstring(text).tag.endswith("svg")
    assert "var(" not in text
    follows_the_ground(text)


def test_so_does_what_the_commands_draw(tmp_path):
    plot(lambda groups, caption: drawn(), {}, tmp_path / "a.svg")
    follows_the_ground((tmp_path / "a.svg").read_text(encoding="utf-8"))


def test_an_inline_figure_is_one_element_with_names_of_its_own():
    text = theme.inline(drawn, "mine", "what it shows")
    root = ET.fromstring(text)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "what it shows"
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib
    names = re.findall(r' id="([^"]+)"', text)
    assert all(name.startswith("mine-") for name in names)
    asked = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert asked
    assert set(asked) <= set(names)


def test_a_file_has_both_sets_of_colours_and_its_text_as_text():
    text = theme.standalone(drawn)
    assert ET.fromstring(text).tag.endswith("svg")
    assert "prefers-color-scheme:dark" in text
    assert ">A title</text>" in text
    assert theme.standalone(drawn) == text
