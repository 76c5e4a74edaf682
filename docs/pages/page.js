// Tables from the JSON files that `asv publish` writes beside this page.
"use strict";

const STEP = 0.05; // of the level before; asv's own threshold for a regression
const MOST_STEPS = 40;
const ORDER = ["epoch.Samples", "epoch.Inputs", "epoch.Hidden", "epoch", "ratio", "parts", "first"];
const UNITS = {
  seconds: [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]],
  bytes: [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]],
};

// asv's feed leads to index.html#BENCHMARK, which is asv.html here.
if (location.hash && !document.getElementById(location.hash.slice(1))) {
  location.replace("asv.html" + location.hash);
} else {
  start().catch((error) => {
    document.getElementById("about").textContent =
      `asv's results cannot be read here: ${error.message}. They need a web server: asv preview.`;
  });
}

async function start() {
  const index = await json("index.json");
  const series = await Promise.all(
    index.graph_param_list.map(async (params) => ({ params, rows: await json(path(params)) })),
  );
  if (!series.length) throw new Error("there are no results of a commit on the published branches");
  series.forEach((one) => { one.last = Math.max(...one.rows.map((row) => row.last_rev ?? -1)); });
  series.sort((a, b) => b.last - a.last);
  const keys = Object.keys(series[0].params).filter(
    (key) => series.some((one) => one.params[key] !== series[0].params[key]),
  );
  const label = document.getElementById("machines");
  const choice = label.querySelector("select");
  choice.append(...series.map((one, i) => element("option", {
    value: i, textContent: keys.map((key) => `${key} ${one.params[key] ?? "–"}`).join(", "),
  })));
  label.hidden = series.length < 2;
  choice.onchange = () => show(index, series[choice.value], keys);
  show(index, series[0], keys);
  document.querySelector("main").hidden = false;
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

function show(index, series, keys) {
  const commit = (revision) => index.revision_to_hash[revision].slice(0, index.hash_length);
  const day = (revision) =>
    new Date(index.revision_to_date[revision]).toISOString().slice(0, 10);
  const { params, last } = series;
  const hidden = ["machine", "branch"]; // the same for all, or said already
  const about = Object.entries(params).filter(([key, value]) => value && !hidden.includes(key));
  document.getElementById("about").textContent =
    `Commit ${commit(last)} of ${day(last)} on ${params.branch}; ` +
    about.map(([key, value]) => `${key.replace("num_cpu", "CPUs")} ${value}`).join(", ") + ".";
  const link = (row, text) => {
    const benchmark = index.benchmarks[row.name];
    const query = keys.map((key) => [key, params[key] ?? "[none]"]);
    values(benchmark, row.idx).forEach((value, i) =>
      query.push([`p-${benchmark.param_names[i]}`, value]));
    const text_of = query.map((pair) => pair.map(encodeURIComponent).join("=")).join("&");
    return element("a", { href: `asv.html#${row.name}${text_of && "?" + text_of}`, textContent: text });
  };
  const grids = Object.keys(index.benchmarks).sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1))
    .map((name) => grid(index.benchmarks[name], series.rows.filter((row) => row.name === name)));
  const known = grids.filter((one) => one.rows.length);
  document.getElementById("winners").replaceChildren(winners(known, link));
  document.getElementById("steps").replaceChildren(steps(index, series.rows, commit, day, link));
  document.getElementById("tables").replaceChildren(
    ...known.flatMap((one) => figures(one, last, commit, link)),
  );
}

// The rows of one benchmark as a grid: a row for each variant, a column for each other parameter.
function grid(benchmark, rows) {
  const [variants, columns = [""]] = benchmark.params.length ? benchmark.params : [[""]];
  const measured = (i, j) => rows.find(
    (row) => (row.idx ?? 0) === i * columns.length + j && row.last_value !== null);
  const used = columns.map((_, j) => j).filter((j) => variants.some((_, i) => measured(i, j)));
  const cells = variants.map((variant, i) => ({
    variant: plain(variant), cells: used.map((j) => measured(i, j)),
  }));
  return {
    benchmark,
    columns: used.map((j) => setting(benchmark.param_names[1], columns[j])),
    rows: cells.filter((row) => row.cells.some(Boolean)),
    ranked: used.map((_, j) => cells.filter((row) => row.cells[j]).sort(
      (a, b) => a.cells[j].last_value - b.cells[j].last_value)),
  };
}

function winners(grids, link) {
  const body = [];
  for (const { benchmark, columns, ranked } of grids) {
    if (!benchmark.name.startsWith("epoch.")) continue;
    body.push([element("th", { colSpan: 5, textContent: title(benchmark) })]);
    columns.forEach((column, j) => {
      const [first, second] = ranked[j];
      const value = first.cells[j].last_value;
      body.push([
        head(column, "row"), first.variant,
        figure(link(first.cells[j], quantity(value, benchmark.unit))),
        second ? second.variant : "–",
        figure(second ? `${(second.cells[j].last_value / value).toPrecision(3)} ×` : ""),
      ]);
    });
  }
  return table(["problem", "fastest", "", "next best", ""], body, "words");
}

function steps(index, rows, commit, day, link) {
  const drifts = ({ row }) => !row.name.startsWith("ratio.");
  const found = rows
    .filter((row) => row.change_rev && row.prev_value > 0 && row.last_value > 0)
    .map((row) => ({ row, ratio: row.last_value / row.prev_value, at: row.change_rev[1] }))
    .filter(({ ratio }) => Math.abs(ratio - 1) >= STEP)
    .sort((a, b) => b.at - a.at || drifts(a) - drifts(b) ||
      Math.abs(Math.log(b.ratio)) - Math.abs(Math.log(a.ratio)));
  if (!found.length) return element("p", { textContent: "No curve has a step." });
  const body = [];
  let at = null;
  for (const { row, ratio, at: revision } of found.slice(0, MOST_STEPS)) {
    const benchmark = index.benchmarks[row.name];
    if (revision !== at) {
      const from = row.change_rev[0] === null ? "" : `after ${commit(row.change_rev[0])}, up to `;
      const text = `${from}${commit(revision)}, ${day(revision)}`;
      body.push([element("th", { colSpan: 4, textContent: text })]);
    }
    at = revision;
    const where = values(benchmark, row.idx).map((v, i) => setting(benchmark.param_names[i], v));
    body.push([
      link(row, title(benchmark)), where.join(", "),
      figure(`${quantity(row.prev_value, benchmark.unit)} → ${quantity(row.last_value, benchmark.unit)}`),
      figure(element("span", {
        className: ratio > 1 ? "slower" : "faster",
        textContent: change(ratio),
      })),
    ]);
  }
  const made = [table(["benchmark", "", "before → after", "change"], body, "words")];
  if (found.length > MOST_STEPS) {
    const rest = `${found.length - MOST_STEPS} more are in asv's list.`;
    made.push(element("p", { className: "note", textContent: rest }));
  }
  const all = document.createDocumentFragment();
  all.append(...made);
  return all;
}

// A percentage of more than a hundred, or of nearly a hundred less, says little.
function change(ratio) {
  if (ratio > 2) return `× ${ratio.toPrecision(3)}`;
  if (ratio < 0.5) return `÷ ${(1 / ratio).toPrecision(3)}`;
  return `${Math.abs(100 * (ratio - 1)).toFixed(0)}% ${ratio > 1 ? "more" : "less"}`;
}

function figures({ benchmark, columns, rows, ranked }, last, commit, link) {
  const body = rows.map(({ variant, cells }) => [
    head(variant || "all", "row"),
    ...cells.map((row, j) => {
      if (!row) return "–";
      const cell = element("td", {});
      cell.append(link(row, quantity(row.last_value, benchmark.unit)));
      cell.classList.toggle("least", ranked[j].length > 1 && ranked[j][0].cells[j] === row);
      if (row.last_rev < last) {
        cell.classList.add("old");
        cell.title = `measured last at ${commit(row.last_rev)}`;
      }
      return cell;
    }),
  ]);
  const heading = element("h3", {});
  heading.append(element("a", { href: `asv.html#${benchmark.name}`, textContent: title(benchmark) }));
  const box = element("div", { className: "wide" });
  box.append(table([benchmark.param_names[0] ?? "", ...columns], body));
  return [heading, box];
}

function table(heads, body, className = "") {
  const made = element("table", { className });
  const first = element("tr", {});
  first.append(...heads.map((text) => head(text, "col")));
  made.createTHead().append(first);
  made.createTBody().append(...body.map((cells) => {
    const row = element("tr", {});
    row.append(...cells.map((cell) => {
      if (cell instanceof HTMLTableCellElement) return cell;
      const made_cell = element("td", {});
      made_cell.append(cell);
      return made_cell;
    }));
    return row;
  }));
  return made;
}

function figure(content) {
  const cell = element("td", { className: "figure" });
  cell.append(content);
  return cell;
}

function head(textContent, scope) {
  return element("th", { textContent, scope });
}

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

// Three digits and the unit that fits.
function quantity(value, unit) {
  const units = UNITS[unit];
  if (!units) return number(value);
  const [size, name] = units.find(([least]) => value >= 0.9995 * least) ?? units.at(-1);
  return `${number(value / size)} ${name}`;
}

function number(value) {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function title(benchmark) {
  return benchmark.pretty_name ?? benchmark.name;
}

function rank(name) {
  const place = ORDER.findIndex((start) => name.startsWith(start));
  return place < 0 ? ORDER.length : place;
}

// asv keeps parameters as Python writes them, and numbers their combinations row by row.
function plain(value) {
  return value.replace(/^'(.*)'$/, "$1");
}

// Numbers need the letter that they are a value of; names speak for themselves.
function setting(name, value) {
  return isNaN(value) ? plain(value) : name ? `${name} = ${value}` : "";
}

function values(benchmark, flat) {
  const found = [];
  for (const choices of [...benchmark.params].reverse()) {
    found.unshift(choices[flat % choices.length]);
    flat = Math.floor(flat / choices.length);
  }
  return found;
}

// The file of a series' figures, named as asv names it.
function path(params) {
  const parts = Object.entries(params).map(([key, value]) =>
    (value === null ? `${key}-null` : value ? `${key}-${value}` : key)
      .replace(/[<>:"/\\^|?*\x00-\x1f]/g, "_"));
  return ["graphs", ...parts.sort().map(encodeURIComponent), "summary.json"].join("/");
}

async function json(address) {
  const answer = await fetch(address, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`${address}: ${answer.status} ${answer.statusText}`);
  return answer.json();
}
