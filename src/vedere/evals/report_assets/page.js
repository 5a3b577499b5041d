"use strict";
// Everything from data sets and models goes on the page by textContent, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const CHUNK = 30;
const find = (id) => document.getElementById(id);
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};

find("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.classList.contains("dark") ||
    (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
  root.classList.toggle("dark", !dark);
  root.classList.toggle("light", dark);
});

const several = data.models.length > 1;
const state = (credit) => (credit === null || credit === undefined ? "none" : credit >= 1 ? "right" : "wrong");
for (const item of data.items) {
  const answers = Object.values(item.a);
  item.states = answers.map((answer) => state(answer.c));
  item.text = [item.i, item.q, item.t, ...Object.values(item.o || {}), ...answers.flatMap((a) => [a.x, a.l, a.n])]
    .filter(Boolean).join("\n").toLowerCase();
}

// One select for the benchmarks and one for each tag that has more than one value.
const choices = new Map();
const addSelect = (label, values, test) => {
  const select = make("select");
  select.setAttribute("aria-label", label);
  select.append(new Option(label + ": all", ""));
  for (const value of values) select.append(new Option(value, value));
  select.addEventListener("change", restart);
  choices.set(select, test);
  find("tags").append(select);
};
if (data.benchmarks.length > 1) {
  addSelect("benchmark", data.benchmarks, (item, value) => data.benchmarks[item.b] === value);
}
const tags = new Map();
for (const item of data.items) {
  for (const [name, value] of Object.entries(item.k || {})) {
    if (!tags.has(name)) tags.set(name, new Set());
    tags.get(name).add(value);
  }
}
for (const [name, values] of tags) {
  if (values.size > 1 && values.size <= 60) {
    addSelect(name.replaceAll("_", " "), [...values].sort(), (item, value) => (item.k || {})[name] === value);
  }
}

function chosen() {
  const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const verdict = find("verdict").value;
  const tests = [...choices].filter(([select]) => select.value).map(([select, test]) => (item) => test(item, select.value));
  return data.items.filter((item) => {
    if (verdict === "differ" && (item.states.length < 2 || new Set(item.states).size < 2)) return false;
    if (["right", "wrong", "none"].includes(verdict) && !item.states.includes(verdict)) return false;
    return words.every((word) => item.text.includes(word)) && tests.every((test) => test(item));
  });
}

const MARKS = { right: "right", wrong: "wrong", none: "no verdict" };
function answerNode(model, answer, item) {
  const kind = state(answer.c);
  const node = make("div", "answer " + kind);
  const partial = answer.c > 0 && answer.c < 1 ? " " + answer.c.toFixed(2) : "";
  node.append(make("div", "mark", answer.l || MARKS[kind] + partial));
  const said = make("div", "said");
  if (several) said.append(make("div", "dim", data.models[model]));
  if (answer.x !== undefined) said.append(make("div", "", answer.x));
  else if (item.q && !answer.n) said.append(make("div", "dim", "(empty answer)"));
  if (answer.r && answer.r !== answer.x) said.append(make("div", "dim", "read as: " + answer.r));
  if (answer.n) said.append(make("div", "dim", answer.n));
  node.append(said);
  return node;
}

function itemNode(item) {
  const kind = item.states.includes("wrong") ? "wrong" : item.states.includes("none") ? "none" : "right";
  const node = make("article", "item " + kind + (item.q ? "" : " compact"));
  const top = make("div", "top");
  top.append(make("b", "", item.i));
  if (data.benchmarks.length > 1) top.append(make("span", "", data.benchmarks[item.b]));
  for (const value of Object.values(item.k || {})) top.append(make("span", "tag", value));
  node.append(top);
  if (item.m && item.m.length) {
    const media = make("div", "media");
    for (const number of item.m) {
      const image = make("img");
      image.loading = "lazy";
      image.alt = "";
      image.src = data.pictures[number];
      image.addEventListener("click", () => image.classList.toggle("large"));
      media.append(image);
    }
    node.append(media);
  }
  if (item.q) node.append(make("div", "question", item.q));
  if (item.o) {
    const list = make("ul", "options");
    for (const [letter, text] of Object.entries(item.o)) {
      list.append(make("li", letter === item.t ? "target" : "", letter + ". " + text));
    }
    node.append(list);
  }
  if (item.t && !(item.o && item.t in item.o)) node.append(make("div", "dim", "expected: " + item.t));
  const answers = make("div", "answers");
  for (const [model, answer] of Object.entries(item.a)) answers.append(answerNode(Number(model), answer, item));
  node.append(answers);
  return node;
}

let waiting = [];
let shown = 0;
function drawMore() {
  const list = find("list");
  const part = document.createDocumentFragment();
  for (const item of waiting.slice(shown, shown + CHUNK)) part.append(itemNode(item));
  shown = Math.min(waiting.length, shown + CHUNK);
  list.append(part);
}
function near() {
  return find("more").getBoundingClientRect().top < innerHeight + 1200;
}
function fill() {
  while (shown < waiting.length && near()) drawMore();
}
function restart() {
  waiting = chosen();
  shown = 0;
  find("list").replaceChildren();
  find("count").textContent = waiting.length === data.items.length
    ? String(waiting.length) : waiting.length + " of " + data.items.length;
  if (!waiting.length) find("list").append(make("p", "empty", "No item fits."));
  fill();
}
find("filters").addEventListener("submit", (event) => event.preventDefault());
find("verdict").addEventListener("change", restart);
if (!several) find("verdict").querySelector('[value="differ"]').remove();
let timer = 0;
find("search").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(restart, 120); });
new IntersectionObserver(fill, { rootMargin: "1200px" }).observe(find("more"));
addEventListener("scroll", fill, { passive: true });
restart();
