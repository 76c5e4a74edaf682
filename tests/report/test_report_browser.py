"""The report in a real browser: on a telephone, in dark mode, in print, and by itself."""

import shutil

import pytest

import twolayer as tl
from twolayer.checking import verify
from twolayer.machine.hardware import fingerprint
from twolayer.measuring.race import Entry, Result
from twolayer.measuring.roofline import Roofline
from twolayer.measuring.startup import Start
from twolayer.report import page, study
from twolayer.report.study import Study

webdriver = pytest.importorskip("selenium.webdriver")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
NAMES = [v.name for v in tl.variants.REGISTRY if v.device == "cpu"]

# The contrast of each text with what lies behind it; of an SVG's text with the figure's ground.
CONTRAST = """
const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
const light = colour => {
  const [r, g, b] = colour.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = parse(getComputedStyle(document.body).backgroundColor);
const found = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || ['STYLE', 'style', 'title'].includes(element.tagName)) continue;
  const style = getComputedStyle(element);
  const colour = parse(element instanceof SVGElement ? style.fill : style.color);
  const [low, high] = [light(colour), light(ground)].sort((a, b) => a - b);
  found.push([(high + 0.05) / (low + 0.05), element.textContent.trim().slice(0, 40)]);
}
return found;
"""


def example():
    """A study whose figures are made up: every CPU variant, each with figures."""
    net = tl.Network()
    variants = list(tl.variants.REGISTRY)
    made = Study(net, "float32", 2, variants, Roofline(2e11, 2e10))
    sweeps, maps = study.workloads(net, "float32")
    results = {}
    for workload in [w for group in (*sweeps.values(), *maps.values()) for w in group]:
        result = Result(workload, 2, made.roof)
        for rank, name in enumerate(NAMES):
            seconds = 1e-6 * 3 ** (len(NAMES) - rank) + workload.shape.flops() / 1e11 * (1 + rank)
            entry = Entry(tl.variants.get(name), blocks=[0.9 * seconds, seconds, 1.2 * seconds])
            result.entries.append(entry)
        results[workload] = result
    made.sweeps = {axis: [results[w] for w in group] for axis, group in sweeps.items()}
    made.maps = {axes: [results[w] for w in group] for axes, group in maps.items()}
    for rank, name in enumerate(NAMES):
        made.starts[name] = Start(5.0 / (1 + rank), 1.0 / (1 + rank))
        made.agreements[name] = [
            verify.Agreement(name, net, "c", study.BASE, dtype, 10.0 ** -(1 + rank / 3))
            for dtype in ("float32", "float64")
        ]
    return made


@pytest.fixture(scope="module")
def browser():
    if not BROWSER or not DRIVER:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    cpu = fingerprint()["cpu"]
    path.write_text(page.render(example(), f"{cpu}, 2 threads, float32", "2030-01-02", "twolayer"))
    return path


@pytest.fixture
def show(browser, file):
    """show(width, media, scheme): the page as a window of that width shows it."""

    def load(width=1280, media="screen", scheme="light"):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        browser.get(file.as_uri())
        return browser

    return load


def test_nothing_is_asked_of_the_network_and_nothing_goes_wrong(show, file):
    shown = show()
    assert shown.get_log("browser") == []
    asked = [
        entry["message"]
        for entry in shown.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert asked
    assert all(file.as_uri() in one or '"url":"data:' in one for one in asked)


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_wider_than_the_screen(show, width):
    shown = show(width)
    wide = shown.execute_script(
        "const most = document.documentElement.clientWidth;"
        "return [...document.querySelectorAll('body *')].filter(e => !e.closest('svg'))"
        ".filter(e => e.getBoundingClientRect().right > most + 1)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    scroll, client = shown.execute_script(
        "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    )
    assert scroll <= client


@pytest.mark.parametrize("width", [360, 1280])
def test_text_in_figures_can_be_read_and_lies_inside_them(show, width):
    shown = show(width)
    sizes = shown.execute_script(
        "return [...document.querySelectorAll('svg text')].filter(e => e.textContent.trim())"
        ".map(e => e.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 9
    out = shown.execute_script(
        "return [...document.querySelectorAll('svg text')].filter(e => {"
        "const a = e.getBoundingClientRect(), b = e.closest('svg').getBoundingClientRect();"
        "return a.left < b.left - 1 || a.right > b.right + 1;}).map(e => e.textContent)"
    )
    assert out == []


@pytest.mark.parametrize(
    ("media", "scheme", "dark"),
    [("screen", "light", False), ("screen", "dark", True), ("print", "dark", False)],
)
def test_text_stands_out_from_its_ground(show, media, scheme, dark):
    shown = show(media=media, scheme=scheme)
    ground = shown.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground != "rgb(255, 255, 255)") is dark
    found = shown.execute_script(CONTRAST)
    assert len(found) > 200
    assert [one for one in found if one[0] < 4.5] == []


def test_no_two_elements_share_a_name(show):
    names = show().execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(names) == len(set(names))


def test_links_inside_the_page_lead_somewhere(show):
    dead = show().execute_script(
        "return [...document.querySelectorAll('a, use')].map(e => e.getAttribute('href') ||"
        " e.getAttribute('xlink:href')).filter(h => !document.getElementById(h.slice(1)))"
    )
    assert dead == []
