"""The published pages in a browser: they load, graphs draw, parameters switch, links lead on."""

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from asv import benchmarks, config, results, runner, util
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).parents[2]
COMMITS = 8
STEP = 5  # the first commit after numba-fused became faster
MACHINE = {
    "machine": "local", "arch": "x86_64", "cpu": "A CPU", "num_cpu": "2", "os": "Linux", "ram": "8",
}  # fmt: skip
SECONDS = {
    "'numpy'": 4e-3, "'numba-blas'": 2e-3, "'numba-fused'": 1e-3, "1": 8e-3, "2": 6e-3,
}  # by variant or number of workers; all others: n/a  # fmt: skip
# What asv's page takes from elsewhere: the package at npm, and where in it the file is.
PACKAGES = {
    "jquery-3.3.1.min.js": ("jquery@3.3.1", "dist/jquery.min.js"),
    "jquery.flot.min.js": ("flot@0.8.3", "jquery.flot.js"),
    "jquery.flot.time.min.js": ("flot@0.8.3", "jquery.flot.time.js"),
    "jquery.flot.selection.min.js": ("flot@0.8.3", "jquery.flot.selection.js"),
    "jquery.flot.categories.min.js": ("flot@0.8.3", "jquery.flot.categories.js"),
    "jquery.flot.orderBars.js": ("flot-orderbars@1.0.0", "js/jquery.flot.orderBars.js"),
    "stupidtable.min.js": ("stupid-table-plugin@1.1.3", "stupidtable.min.js"),
    "md5.min.js": ("blueimp-md5@2.19.0", "js/md5.min.js"),
    "bootstrap.min.js": ("bootstrap@3.1.1", "dist/js/bootstrap.min.js"),
    "bootstrap.min.css": ("bootstrap@3.1.1", "dist/css/bootstrap.min.css"),
}


def seconds(variant, j, commit):
    """What was "measured": the j-th value of the other parameter costs j + 1 times as much."""
    faster = 0.5 if variant == "'numba-fused'" and commit >= STEP else 1.0
    return SECONDS[variant] * (j + 1) * faster if variant in SECONDS else None


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of the whole suite, published by asv from made results of a few commits."""
    folder = tmp_path_factory.mktemp("asv")
    (folder / "tools").symlink_to(ROOT / "tools")
    (folder / "repository").mkdir()
    git = ["git", "-C", str(folder / "repository"), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)
    settings = util.load_json(str(ROOT / "asv.conf.json"), js_comments=True)
    settings |= {"repo": str(folder / "repository"), "benchmark_dir": str(ROOT / "benchmarks")}
    (folder / "asv.conf.json").write_text(json.dumps(settings))
    conf = config.Config.from_json(settings)
    conf.results_dir = str(folder / conf.results_dir)
    found = discovered(folder)
    benchmarks.Benchmarks(conf, found).save()
    util.write_json(f"{conf.results_dir}/local/machine.json", MACHINE, 1)
    for commit in range(COMMITS):
        date = {"GIT_COMMITTER_DATE": f"2026-01-0{commit + 1}T00:00:00Z"}
        made = [*git, "commit", "--allow-empty", "--quiet", f"--message={commit}"]
        subprocess.run(made, check=True, env=os.environ | date)
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
        )
        save(conf, found, commit, head.stdout.strip())
    subprocess.run([sys.executable, "-m", "asv", "publish", "--no-pull"], cwd=folder, check=True)
    return folder / conf.html_dir


def discovered(folder):
    code = "import sys; from asv_runner.discovery import list_benchmarks as found; "
    code += "found(sys.argv[1], open(sys.argv[2], 'w'))"
    path = folder / "found.json"
    subprocess.run([sys.executable, "-c", code, ROOT / "benchmarks", path], check=True)
    return json.loads(path.read_text())


def save(conf, found, commit, name):
    packages = {"python": "3.13", "numba": "0.68.1", "numpy": "2.4.6"}
    date = 1767225600000 + commit * 86400000
    made = results.Results(MACHINE | packages, packages, name, date, "3.13", "env", {})
    for benchmark in found:
        variants, *others = benchmark["params"] or [["'numpy'"]]
        columns = range(len(others[0]) if others else 1)
        values = [seconds(variant, j, commit) for variant in variants for j in columns]
        nothing = [None] * len(values)
        made.add_result(benchmark, runner.BenchmarkResult(values, nothing, nothing, 0, "", None))
    made.save(conf.results_dir)


@pytest.fixture(scope="module")
def scripts(pytestconfig):
    """The files that asv's page takes from elsewhere, from npm; kept in pytest's cache."""
    folder = pytestconfig.cache.mkdir("asv-scripts")
    modules = folder / "node_modules"
    if not modules.is_dir():
        if shutil.which("npm") is None:
            pytest.skip("npm, which brings the scripts of asv's pages, is not installed")
        with tempfile.TemporaryDirectory(dir=folder) as new:
            names = {package for package, _ in PACKAGES.values()}
            command = ["npm", "install", "--prefix", new, "--no-save", "--no-audit", *names]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = done.stderr.strip()[:300]
                pytest.skip(f"npm cannot bring the scripts of asv's pages: {reason}")
            with contextlib.suppress(OSError):  # another process was faster
                (Path(new) / "node_modules").rename(modules)
    return {
        name: modules / package.split("@")[0] / path for name, (package, path) in PACKAGES.items()
    }


@pytest.fixture(scope="module")
def address(site):
    """The site behind a web server of its own."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def graphs(site, scripts):
    """asv's page with its scripts beside it instead of elsewhere."""
    page = site / "asv.html"

    def local(match):
        name = match["address"].rpartition("/")[2]
        shutil.copy(scripts[name], site / name)
        return f'{match["name"]}="{name}"'

    pattern = r'(?P<name>src|href)="(?P<address>https://[^"]+\.(js|css))"( integrity="[^"]*")?'
    page.write_text(re.sub(pattern, local, page.read_text()))
    assert "integrity" not in page.read_text()


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window."""
    binary = next(filter(None, map(shutil.which, ("google-chrome", "chromium"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium with its chromedriver is installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_window_size(1200, 900)
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium, address):
    """The browser; whatever a test did, no page may have complained."""
    chromium.get("about:blank")
    chromium.get_log("browser")
    yield chromium
    assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []


def wait(browser, condition):
    again = [StaleElementReferenceException]
    return WebDriverWait(browser, 20, ignored_exceptions=again).until(lambda _: condition())


def opened(browser, page):
    browser.get("about:blank")  # a new fragment alone loads no page
    browser.get(page)
    return browser


def landed(browser, address):
    opened(browser, f"{address}/index.html")
    wait(browser, browser.find_element(By.TAG_NAME, "main").is_displayed)
    return browser


def rows(browser, selector):
    """The texts of a table's cells."""
    code = """return [...document.querySelectorAll(arguments[0])].map(
        (row) => [...row.cells].map((cell) => cell.textContent))"""
    return browser.execute_script(code, f"{selector} tr")


def test_the_landing_page_names_commit_machine_and_winners(browser, address):
    landed(browser, address)
    about = browser.find_element(By.ID, "about").text
    assert "of 2026-01-08 on main; arch x86_64, cpu A CPU, CPUs 2," in about
    found = rows(browser, "#winners")
    assert ["n = 65536", "numba-fused", "1.50 ms", "numba-blas", "4.00 ×"] in found


def test_the_landing_page_tells_what_changed(browser, address):
    landed(browser, address)
    found = rows(browser, "#steps")
    assert found[1][0].endswith(", 2026-01-06")
    assert any(row[1:] == ["numba-fused, n = 256", "1.00 ms → 500 µs", "50% less"] for row in found)
    assert not any("numba-blas" in cell for row in found for cell in row)


def test_a_large_change_is_a_factor(browser, address):
    landed(browser, address)
    told = browser.execute_script("return [0.004, 0.5, 0.93, 1.07, 2, 38.77].map(change)")
    assert told == ["÷ 250", "50% less", "7% less", "7% more", "100% more", "× 38.8"]


def test_the_landing_page_has_all_figures_and_no_empty_rows(browser, address):
    landed(browser, address)
    index = json.loads(browser.execute_async_script(
        "fetch('index.json').then(r => r.text()).then(arguments[0])"
    ))  # fmt: skip
    assert len(browser.find_elements(By.CSS_SELECTOR, "#tables table")) == len(index["benchmarks"])
    assert ["numba-fused", "500 µs", "1.00 ms", "1.50 ms"] in rows(browser, "#tables")
    assert "cupy" not in browser.find_element(By.ID, "tables").text


@pytest.mark.parametrize("width", [360, 1200])
def test_the_landing_page_fits_the_window(browser, address, width):
    browser.set_window_size(width, 900)
    landed(browser, address)
    page = browser.find_element(By.TAG_NAME, "html")
    assert page.get_property("scrollWidth") <= page.get_property("clientWidth")
    browser.set_window_size(1200, 900)


def test_links_lead_to_graphs_and_back(browser, address, graphs):
    landed(browser, address)
    cell = browser.find_element(By.CSS_SELECTOR, "#tables td.least a")
    cell.click()
    graph_drawn(browser)
    assert "asv.html#epoch." in browser.current_url
    pressed = browser.find_elements(By.CSS_SELECTOR, "#graphdisplay-navigation-params a.active")
    assert "numba-fused" in [one.text for one in pressed]
    home = browser.find_element(By.ID, "project-name").get_attribute("href")
    landed(browser, home.removesuffix("/index.html"))


def test_every_link_of_the_landing_page_resolves(browser, address, site, graphs):
    landed(browser, address)
    index = json.loads((site / "index.json").read_text())
    links = set(browser.execute_script("return [...document.links].map((link) => link.href)"))
    for link in links:
        page, _, fragment = link.partition("#")
        path = site / (page.removeprefix(address).strip("/") or "index.html")
        assert path.is_file(), link
        name = fragment.partition("?")[0]
        if path.name == "asv.html" and not name.startswith("/"):
            assert name in index["benchmarks"], link
        elif path.name == "index.html" and fragment:
            assert browser.find_elements(By.ID, fragment), link


def test_the_address_of_a_graph_leads_on_from_the_landing_page(browser, address, graphs):
    """asv's feed has such addresses."""
    opened(browser, f"{address}/index.html#epoch.Samples.time_epoch?p-n=256")
    graph_drawn(browser)
    assert browser.current_url == f"{address}/asv.html#epoch.Samples.time_epoch?p-n=256"


def test_without_results_the_landing_page_says_so(chromium, address, site):
    (site / "index.json").rename(site / "away.json")
    try:
        opened(chromium, f"{address}/index.html")
        about = chromium.find_element(By.ID, "about")
        wait(chromium, lambda: "cannot be read here: index.json: 404" in about.text)
    finally:
        (site / "away.json").rename(site / "index.json")


def graph_drawn(browser):
    """Wait until some curve of the graph has a colour."""
    painted = """
      const canvas = document.querySelector('#main-graph canvas.flot-base');
      if (!canvas || !canvas.width) return false;
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      for (let i = 0; i < data.length; i += 4)
        if (data[i + 3] && Math.max(data[i], data[i + 1], data[i + 2]) -
            Math.min(data[i], data[i + 1], data[i + 2]) > 60) return true;
      return false;"""
    wait(browser, lambda: browser.execute_script(painted))


@pytest.mark.parametrize(
    ("page", "text"),
    [("", "An epoch over n"), ("summarylist", "An epoch over n"), ("regressions", "Best after")],
)
def test_pages_of_asv_load(browser, address, graphs, page, text):
    opened(browser, f"{address}/asv.html#/{page}")
    wait(browser, lambda: text in browser.find_element(By.TAG_NAME, "body").text)


def test_a_parameter_switches_the_graph(browser, address, graphs):
    opened(browser, f"{address}/asv.html#epoch.Samples.time_epoch?p-variant='numpy'&p-n=256")
    graph_drawn(browser)
    image = "return document.querySelector('#main-graph canvas.flot-base').toDataURL()"
    before = browser.execute_script(image)
    buttons = browser.find_elements(By.CSS_SELECTOR, "#graphdisplay-navigation-params a")
    next(button for button in buttons if button.text == "numba-fused").click()
    wait(browser, lambda: "numba-fused" in browser.current_url)
    wait(browser, lambda: browser.execute_script(image) != before)
    graph_drawn(browser)
