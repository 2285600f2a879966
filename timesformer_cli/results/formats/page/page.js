// ---- The page of labels: its records lie in <script type="application/json"> elements, one in each

const CHUNK = 25; // rows that come and go together while the page is scrolled
const RANKS = 5; // labels of a video that are shown; further ones fold out
const NAMES = 8; // labels to choose from that are shown at a time
const FRAMES = 4; // frames of a timeline beside its path
const NONE = -1; // stands for the label of a video or a segment that has none
const OPEN = -2; // and for that of one whose answer was left open

const run = parse(document.querySelector("#run"));
const bar = document.querySelector("#bar");
const form = document.querySelector("form");
const main = document.querySelector("main");

// ---- Words and numbers

const score = (value) => (run.raw ? value.toFixed(2) : percent(value));

const length = (seconds) => (seconds < 60 ? `${seconds.toFixed(1)} s` : clock(seconds));

// ---- Labels, by their numbers in the model

const names = run.labels.map(visible);
const name = (label) => (label === NONE ? "no label" : label === OPEN ? "–" : names[label]);
const best = (part) => (part.abstained ? OPEN : (part.ranks[0]?.[0] ?? NONE));

// ---- Records

// What bars are long by. Logits have no bounds: the least and the greatest of the page stand for them.
let [least, greatest] = run.raw ? [0, 0] : [0, 1];

function read(script, order) {
  const row = { video: {}, parts: [], pictures: [], films: [], ...parse(script), order };
  const { path, timeline } = row;
  [row.folder, row.file] = split(row.path);
  row.path = row.folder + row.file;
  row.duration = row.video.duration ?? undefined;
  const seconds = new Map(); // by labels that are the first of a part
  const words = new Set([row.path]);
  row.parts.forEach((part, position) => {
    // Windows may overlap: each is shown until the next begins.
    part.until = Math.min(part.end, row.parts[position + 1]?.start ?? Infinity);
    const [from, to] = timeline ? [part.start, part.end] : row.part;
    const [was, score] = part.ranks[0] ?? [];
    Object.assign(part, { row, place: position, path, from, to, key: keyOf(path, from, to) });
    Object.assign(part, { was: run.labels[was] ?? "", score });
    seconds.set(best(part), (seconds.get(best(part)) ?? 0) + part.until - part.start);
    for (const [label, value] of part.ranks) {
      words.add(names[label]);
      [least, greatest] = [Math.min(least, value), Math.max(greatest, value)];
      row.score = Math.max(row.score ?? value, value);
    }
  });
  row.labels = new Map([...seconds].sort((a, b) => b[1] - a[1]));
  row.label = names[[...row.labels.keys()].find((label) => label >= 0)];
  if (row.error) words.add(reason(row.error.kind)).add(visible(row.error.message));
  row.text = fold([...words].join("\n"));
  return row;
}

const records = document.querySelector("#records");
const rows = Array.from(records.children, read);
records.remove();
const parts = rows.flatMap((row) => row.parts);
const pictured = rows.some((row) => [...row.pictures, ...row.films].some(Boolean));
const tenths = rows.some((row) => row.parts.some((part) => Math.round(10 * part.start) % 10));
const span = (part) => `${clock(part.start, tenths)} – ${clock(part.end, tenths)}`;

// The different keys and how often each is there, the most frequent first.
function tally(keys) {
  const counts = new Map();
  for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
  return [...counts].sort(([, a], [, b]) => b - a);
}

// ---- Colours of the labels in timelines: twelve hues at four levels of light

const colours = new Map([NONE, OPEN].map((label) => [label, "transparent"]));
const taken = new Set();

// A label has the same colour on most pages. Where two of a page would share one, the rarer takes the next.
for (const [label] of tally(rows.flatMap((row) => (row.timeline ? row.parts.map(best) : [])))) {
  if (label < 0) continue;
  let place = label % 12;
  while (taken.has(place) && taken.size < 48) place = (place + 1) % 48;
  taken.add(place);
  const level = Math.floor(place / 12);
  colours.set(label, `oklch(${[0.68, 0.82, 0.55, 0.42][level]} 0.12 ${210 * place + 8 * level})`);
}

// ---- A row

function tag(label) {
  const swatch = make("span", { class: "swatch" });
  swatch.style.background = colours.get(label);
  return make("span", { class: "tag" }, swatch, make("bdi", {}, name(label)));
}

function draw(row, position, all) {
  const [kind, answer] = row.error ? ["failed", failure] : row.timeline ? ["timeline", timeline] : ["whole", whole];
  const path = link(row, "", make("span", {}, row.folder), row.file);
  return make(
    "li",
    { class: kind, "aria-posinset": position, "aria-setsize": all },
    ...(pictured ? [make("div", { class: "pictures" }, ...spread(row))] : []),
    make(
      "div",
      { class: "video" },
      make("bdi", {}, path),
      make("p", { class: "facts" }, facts(row.video)),
      make("p", { class: "verdict" }, ...verdictOfRow(row)),
    ),
    make("div", { class: "answer" }, ...answer(row)),
  );
}

// The row in the list as it is to be: also with what belongs to the one in hand.
function put(row, position, all) {
  row.element = draw(row, position, all);
  if (row.parts.length) row.element.addEventListener("click", (event) => clicked(row, event.target));
  if (hand?.row === row) dress(row);
  return row.element;
}

// What is seen of a part: a picture, a film, or nothing.
function seen(row, place) {
  if (row.films[place]) return film(row.films[place]);
  return row.pictures[place] ? picture(row.pictures[place]) : "";
}

// The picture of a video as a whole, or a few frames from all over a timeline.
function spread(row) {
  const there = row.parts.map((_, place) => place).filter((place) => row.pictures[place] || row.films[place]);
  const shown = Math.min(there.length, FRAMES);
  return Array.from({ length: shown }, (_, at) => seen(row, there[Math.floor(((at + 0.5) * there.length) / shown)]));
}

function facts({ duration, width, height, fps, codec }) {
  const size = width && `${width} × ${height}`;
  const time = duration != null && length(duration);
  return [time, size, fps && `${+fps.toFixed(2)} fps`, codec && visible(codec)].filter(Boolean).join(" · ");
}

function failure({ error }) {
  return [make("p", {}, make("b", {}, reason(error.kind)), make("bdi", {}, visible(error.message)))];
}

function whole(row) {
  const [{ ranks, abstained }] = row.parts;
  if (abstained) return [make("p", {}, name(OPEN)), disclosure(row, plural(ranks.length, "label"), () => bars(ranks))];
  if (!ranks.length) return [make("p", { class: "facts" }, name(NONE))];
  const rest = ranks.slice(RANKS);
  const more = rest.length ? [disclosure(row, plural(rest.length, "more label"), () => bars(rest))] : [];
  return [bars(ranks.slice(0, RANKS)), ...more];
}

function bars(ranks) {
  const items = ranks.map(([label, value]) => {
    const fill = make("span", {});
    fill.style.width = `${(100 * (value - least)) / (greatest - least || 1)}%`;
    const bar = make("span", { class: "bar" }, fill);
    return make("li", {}, make("bdi", {}, name(label)), bar, make("span", { class: "score" }, score(value)));
  });
  return make("ol", { class: "bars" }, ...items);
}

// What folds out is made only then, and is open again when its row comes back.
function disclosure(row, title, content) {
  const details = make("details", {}, make("summary", {}, title));
  details.unfold = (open) => {
    row.open = details.open = open;
    if (!open) details.children[1]?.remove();
    else if (!details.children[1]) details.append(content());
  };
  details.addEventListener("toggle", () => details.unfold(details.open));
  details.unfold(Boolean(row.open));
  return details;
}

// ---- A timeline: a strip of colours to go along with the pointer or with keys, its key, and the list of segments

function timeline(row) {
  const details = disclosure(row, plural(row.parts.length, "segment"), () => {
    const items = row.parts.map((part) => segment(row, part));
    return make("ol", { class: "segments", tabindex: 0, "aria-label": `Segments of ${row.path}` }, ...items);
  });
  const show = (position) => {
    details.unfold(true);
    take(row.parts[position]);
  };
  const longest = [...row.labels].slice(0, RANKS);
  const key = longest.map(([label, seconds]) => make("li", {}, tag(label), ` ${length(seconds)}`));
  return [slider(row, show), make("ul", { class: "key" }, ...key), details];
}

function segment(row, part) {
  const time = link(row, `#t=${part.start},${part.end}`, span(part));
  const [value, ...others] = part.ranks.map(([label, value], at) =>
    make("span", { class: "score" }, ...(at ? [make("bdi", {}, name(label)), " "] : []), score(value)),
  );
  const said = make("span", { class: "verdict" }, ...verdict(part));
  return make("li", {}, seen(row, part.place), time, tag(best(part)), value ?? "", said, make("p", {}, ...others));
}

const endOf = ({ duration, parts }) => Math.max(duration ?? 0, parts.at(-1).end) || 1;

function slider(row, show) {
  const { parts } = row;
  const end = endOf(row);
  const strip = make("div", { class: "strip" }, ...blocks(parts, end));
  const tip = make("div", { class: "tip", hidden: "" });
  const limits = { "aria-valuemin": 1, "aria-valuemax": parts.length, "aria-label": `Timeline of ${row.path}` };
  const element = make("div", { class: "slider", role: "slider", tabindex: 0, ...limits }, strip, tip);
  let at = 0;
  const point = (position) => {
    at = Math.min(Math.max(position, 0), parts.length - 1);
    const part = parts[at];
    const value = part.ranks.length ? score(part.ranks[0][1]) : "";
    element.setAttribute("aria-valuenow", at + 1);
    element.setAttribute("aria-valuetext", `${span(part)}, ${name(best(part))} ${value}`);
    tip.replaceChildren(seen(row, at), span(part), tag(best(part)), value);
    const middle = (50 * (part.start + part.until)) / end;
    tip.style.left = `${middle}%`;
    tip.style.transform = `translateX(-${middle}%)`; // keeps it within the strip at either end
  };
  const follow = ({ clientX }) => {
    const { left, width } = strip.getBoundingClientRect();
    point(parts.findLastIndex((part) => part.start <= (end * (clientX - left)) / width));
    tip.hidden = false;
  };
  const keys = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -Infinity, End: Infinity };
  element.addEventListener("keydown", (event) => {
    if (event.key in keys) point(at + keys[event.key]);
    else if (event.key === "Enter" || event.key === " ") show(at);
    else return;
    event.preventDefault();
  });
  element.addEventListener("pointermove", follow);
  element.addEventListener("click", (event) => {
    follow(event);
    show(at);
    tip.hidden = true; // it would hide what the row in hand shows below
  });
  element.addEventListener("focus", () => (tip.hidden = false));
  for (const leaving of ["pointerleave", "blur"]) element.addEventListener(leaving, () => (tip.hidden = true));
  point(0);
  return element;
}

// The coloured stretches of a strip: neighbours of one label are one. If a label is asked for, the others step back.
function blocks(parts, end) {
  const found = [];
  for (const part of parts) {
    const last = found.at(-1);
    if (last?.label === best(part) && last.until >= part.start) last.until = part.until;
    else found.push({ label: best(part), start: part.start, until: part.until });
  }
  const asked = form.elements.label.value;
  return found.map(({ label, start, until }) => {
    const block = make("span", { class: asked && label !== Number(asked) ? "other" : "" });
    const [left, width] = [start, until - start].map((seconds) => `${(100 * seconds) / end}%`);
    Object.assign(block.style, { left, width, background: colours.get(label) });
    return block;
  });
}

// ---- Review: the part in hand is played, and keys say what it shows

const store = new Store(run.key);
const corrections = new Corrections(store, parts);
const player = new Player();
const keys = document.querySelector("dialog");
const notice = document.querySelector("#notice");
const REVIEWED = {
  open: (part) => !part.correction,
  done: (part) => part.correction,
  changed: ({ correction, was }) => correction?.label && correction.label !== was,
  unsure: ({ correction }) => correction?.label === "",
};

const alphabet = run.labels.map((label, index) => [label, index]).sort(([a], [b]) => collator.compare(a, b));
const choices = run.labels.map((label, index) => ({ label, words: asWords(label), index }));

let hand = null; // the part that is played and gets the next answer
let listed = []; // rows, as filtered and sorted
let queue = []; // their parts

function verdict({ correction, was }) {
  if (!correction) return [];
  if (!correction.label) return ["? unsure"];
  return correction.label === was ? ["✓ accepted"] : ["→ ", make("bdi", {}, visible(correction.label))];
}

function verdictOfRow(row) {
  if (!row.timeline) return row.parts.flatMap(verdict);
  const done = row.parts.filter(REVIEWED.done).length;
  return done ? [`✓ ${count(done)} of ${plural(row.parts.length, "segment")} reviewed`] : [];
}

// How far the review is.
function tell() {
  const left = parts.length - corrections.count;
  const at = hand ? queue.indexOf(hand) + 1 : 0;
  const where = at ? `${count(at)} of ${count(queue.length)}` : `${count(corrections.count)} of ${count(parts.length)}`;
  document.querySelector("#progress").textContent = `${where}${at ? "" : " reviewed"}, ${count(left)} left`;
  bar.querySelector("[name=download]").disabled = !corrections.count && !corrections.unsaved;
  say(store.problem);
}

function say(text) {
  if (text) notice.textContent = text;
  notice.hidden = !notice.textContent;
}

// Show what was said of a part, in its row.
function mark(part) {
  const { element } = part.row;
  if (!element) return;
  element.querySelector(".video .verdict").replaceChildren(...verdictOfRow(part.row));
  element.querySelectorAll(".segments .verdict")[part.place]?.replaceChildren(...verdict(part));
}

// Take a part in hand; with `scroll`, bring it into view, if it is in the list.
function take(part, { scroll = false } = {}) {
  const before = hand;
  hand = part;
  notice.textContent = "";
  if (before) undress(before.row);
  if (part.row.chunk) fill(part.row.chunk);
  if (part.row.element) dress(part.row);
  const { element } = part.row;
  if (element && !element.contains(document.activeElement)) element.focus({ preventScroll: true });
  if (element && scroll) {
    element.style.scrollMarginTop = `${getComputedStyle(bar).position === "sticky" ? bar.offsetHeight : 0}px`;
    element.scrollIntoView({ block: "nearest" });
  }
  tell();
}

function clicked(row, target) {
  const choice = target.closest(".choices li");
  if (choice && hand?.row === row) return decide(run.labels[hand.ranks[[...choice.parentNode.children].indexOf(choice)][0]]);
  const item = target.closest(".segments li");
  if (item) take(row.parts[[...item.parentNode.children].indexOf(item)]);
  else if (!target.closest("a, button, summary, input, .slider, .panel, .player") && hand?.row !== row) take(row.parts[0]);
}

// What only the row in hand has: the player, and below its answer a panel.
function dress(row) {
  const { element, films, url, video } = row;
  const shown = { url, film: films[hand.place], name: row.path, start: hand.from, end: hand.to };
  element.classList.add("here");
  element.tabIndex = -1;
  element.ariaCurrent = "true";
  element.prepend(player.element);
  if (player.part !== hand) player.load({ ...shown, ratio: video.width / video.height || undefined }, { loop: true });
  player.part = hand;
  const title = `${span(hand)} · segment ${count(hand.place + 1)} of ${count(row.parts.length)}`;
  const above = row.timeline ? [make("p", { class: "facts" }, title), bars(hand.ranks.slice(0, RANKS))] : [];
  const panel = make("div", { class: "panel" }, ...above, tools());
  element.querySelector(row.timeline ? ".key" : ".answer > :first-child").after(panel);
  element.querySelector(row.timeline ? ".panel .bars" : ".bars")?.classList.add("choices");
  if (row.timeline) pointOut(element);
}

// Point out the segment in hand on its strip, and in its list if that is open.
function pointOut(element) {
  const { row, start, until, place } = hand;
  const now = make("span", { class: "now" });
  const end = endOf(row);
  Object.assign(now.style, { left: `${(100 * start) / end}%`, width: `${(100 * (until - start)) / end}%` });
  element.querySelector(".strip").append(now);
  const segments = element.querySelector(".segments");
  if (!segments) return;
  segments.querySelector("[aria-current]")?.removeAttribute("aria-current");
  segments.children[place].setAttribute("aria-current", "true");
  segments.scrollTop = segments.children[place].offsetTop;
}

function undress(row) {
  const { element } = row;
  if (!element) return;
  element.classList.remove("here");
  element.ariaCurrent = null;
  element.querySelector(".panel").remove();
  element.querySelector(".now")?.remove();
  element.querySelector(".choices")?.classList.remove("choices");
  if (player.element.parentNode === element) player.element.remove();
}

function tools() {
  const tool = (text, key, action) => {
    const button = make("button", { type: "button" }, `${text} `, make("kbd", {}, key));
    button.addEventListener("click", action);
    return button;
  };
  return make(
    "div",
    { class: "tools" },
    tool("Accept", "a", accept),
    tool("Other label", "/", choose),
    tool("Unsure", "u", () => decide("")),
    tool("Next", "n", next),
    tool("Undo", "z", undo),
  );
}

// ---- What the keys do

function accept() {
  if (hand?.was) decide(hand.was);
  else if (hand) say("It has no label to accept: choose one with /");
  else next();
}

function decide(label) {
  if (!hand) return next();
  const part = hand;
  corrections.make(part, label);
  mark(part);
  next();
}

// Go to the next part that nobody has looked at, round to the beginning.
function next() {
  const at = queue.indexOf(hand) + 1;
  const found = queue.findIndex((part, place) => place >= at && !part.correction);
  const part = queue[found < 0 ? queue.findIndex((part) => !part.correction) : found];
  if (part) return take(part, { scroll: true });
  if (hand) take(hand);
  say("Everything in the list is reviewed.");
}

function undo() {
  const part = corrections.undo();
  if (!part) return say("There is nothing to undo.");
  mark(part);
  if (!part.row.chunk) clear(); // it is shown without filters
  take(part, { scroll: true });
}

// Type a label: the list narrows, Enter takes the first.
function choose() {
  if (!hand) return next();
  const panel = hand.row.element.querySelector(".panel");
  if (!panel.querySelector(".chooser")) panel.append(chooser(hand));
  panel.querySelector("input").focus({ preventScroll: true });
  panel.scrollIntoView({ block: "nearest" });
}

// The names to choose from for a part: by score as far as it has one, then new ones, then by alphabet.
function namesFor(part) {
  const scored = [...part.ranks.map(([index]) => index), ...part.next];
  const first = new Set(scored);
  const known = new Set(run.labels);
  const own = [...corrections.newNames(known)].map((label) => ({ label, words: asWords(label) }));
  const rest = alphabet.filter(([, index]) => !first.has(index)).map(([, index]) => choices[index]);
  return [...scored.map((index) => choices[index]), ...own, ...rest];
}

function chooser(part) {
  const names = namesFor(part);
  const input = make("input", {
    ...{ type: "text", role: "combobox", "aria-label": "Label", "aria-controls": "names", "aria-expanded": "true" },
    ...{ autocomplete: "off", spellcheck: "false", placeholder: "Type a label" },
  });
  const items = make("ol", { id: "names", role: "listbox" });
  let at = 0;
  const select = (place) => {
    at = (place + items.children.length) % items.children.length;
    [...items.children].forEach((item, position) => (item.ariaSelected = String(position === at)));
    input.setAttribute("aria-activedescendant", `name-${at}`);
  };
  const narrow = () => {
    const typed = input.value.trim().replace(/\s+/g, " ");
    const found = narrowed(names, typed).slice(0, NAMES).map(({ label }) => [label, visible(label)]);
    if (typed && !names.some(({ label }) => fold(label) === fold(typed))) found.push([typed, `New label: ${typed}`]);
    const shown = found.map(([label, text], place) => {
      const item = make("li", { id: `name-${place}`, role: "option" }, make("bdi", {}, text));
      item.label = label;
      return item;
    });
    items.replaceChildren(...shown);
    select(0);
  };
  const close = () => (element.remove(), part.row.element?.focus({ preventScroll: true }));
  const pick = (item) => (close(), decide(item.label));
  const actions = {
    ArrowDown: () => select(at + 1),
    ArrowUp: () => select(at - 1),
    Escape: close,
    Enter: () => pick(items.children[at]),
  };
  input.addEventListener("input", narrow);
  input.addEventListener("keydown", (event) => {
    if (event.isComposing || !(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  });
  items.addEventListener("click", ({ target }) => target.closest("li") && pick(target.closest("li")));
  const element = make("div", { class: "chooser" }, input, items);
  narrow();
  return element;
}

const KEYS = [
  ["a", "Enter", "Accept the label, and go on", accept],
  ["1 – 5", "", "Take this one of the labels shown, and go on", null],
  ["/", "l", "Type another label, also a new one", choose],
  ["u", "", "Unsure: leave it out of the labels, and go on", () => decide("")],
  ["n", " ", "Go to the next that is not reviewed", next],
  ["z", "", "Undo, and go back", undo],
  ["p", "", "Play or stop", () => player.toggle()],
  ["?", "", "Show or hide these keys", () => keys.showModal()],
];
const actions = new Map(KEYS.flatMap(([key, second, , action]) => [key, second].map((each) => [each, action])));
const STEPS = { ArrowLeft: -1, ArrowRight: 1 };

// Fields take letters, and what can be pressed takes Enter and the space.
function typedInto(target, key) {
  if (target.closest("input:not([type=radio]), select, textarea, dialog")) return true;
  return ["Enter", " "].includes(key) && target.closest("a, button, summary, label, input, video, .slider, .segments");
}

function press(event) {
  const { key, target } = event;
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || typedInto(target, key)) return;
  const rank = /^[1-5]$/.test(key) && hand?.ranks[key - 1];
  if (rank) decide(run.labels[rank[0]]);
  else if (key in STEPS && hand && player.steps && !target.closest(".slider, input")) player.step(STEPS[key]);
  else if (key && actions.get(key)) actions.get(key)();
  else return;
  event.preventDefault();
}

async function loadFile({ target }) {
  const [file] = target.files;
  if (!file) return;
  const text = corrections.load(await file.text(), visible(file.name));
  target.value = ""; // the same file may be loaded again
  update();
  say(text);
}

// ---- The list: only what is near the window is there

let height = 120; // of a row, as far as is known

const observer = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => (isIntersecting ? fill : empty)(target)),
  { rootMargin: "1000px" },
);

function fill(chunk) {
  if (chunk.firstChild) return;
  chunk.append(...chunk.rows.map((row, at) => put(row, chunk.start + at, chunk.all)));
  chunk.style.height = "";
  height = chunk.offsetHeight / chunk.rows.length;
}

function empty(chunk) {
  if (!chunk.firstChild || chunk.contains(document.activeElement)) return;
  for (const row of chunk.rows) row.element = undefined;
  chunk.style.height = `${chunk.offsetHeight}px`;
  chunk.replaceChildren();
}

function list(shown) {
  const chunks = [];
  for (let start = 0; start < shown.length; start += CHUNK) {
    const chunk = make("ol", { start: start + 1 });
    Object.assign(chunk, { rows: shown.slice(start, start + CHUNK), all: shown.length });
    chunk.style.height = `${height * chunk.rows.length}px`;
    chunks.push(chunk);
  }
  observer.disconnect();
  for (const row of listed) row.element = row.chunk = undefined;
  listed = shown;
  queue = shown.flatMap((row) => row.parts);
  for (const chunk of chunks) for (const row of chunk.rows) row.chunk = chunk;
  main.replaceChildren(...(chunks.length ? chunks : [make("p", {}, "No videos.")]));
  if (chunks.length) fill(chunks[0]);
  chunks.forEach((chunk) => observer.observe(chunk));
}

// ---- What is asked for: in the form, and in the address after "#"

let sorted = { by: "order", rows };

// Rows by one of their properties, backwards if a minus stands before it; those without it come last.
function inOrder(by) {
  const [sign, key] = by.startsWith("-") ? [-1, by.slice(1)] : [1, by];
  return rows.toSorted(({ [key]: a }, { [key]: b }) => {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    return sign * (typeof a === "string" ? collator.compare(a, b) : a - b);
  });
}

function update() {
  const { text, label, status, review, sort } = Object.fromEntries(new FormData(form));
  if (sorted.by !== sort) sorted = { by: sort, rows: inOrder(sort) };
  const wanted = fold(text.trim());
  const shown = sorted.rows.filter(
    (row) =>
      row.text.includes(wanted) &&
      (!label || row.labels.has(Number(label))) &&
      (!status || status === (row.error ? "error" : "ok")) &&
      (!review || row.parts.some(REVIEWED[review])),
  );
  list(shown);
  tell();
  const part = shown.length < rows.length ? `${count(shown.length)} of ` : "";
  form.querySelector("output").value = part + plural(rows.length, "video");
  scrollTo(0, Math.min(scrollY, main.offsetTop - bar.offsetHeight)); // to where the new list begins
  form.querySelector("button").disabled = !asked().length;
}

const asked = () => [...new FormData(form)].filter(([, value]) => value && value !== "order");
const remember = () => history.replaceState(null, "", `#${new URLSearchParams(asked())}`);

function clear() {
  form.reset();
  remember();
  update();
}

function restore() {
  form.reset();
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
    const field = form.elements.namedItem(key);
    if (field) field.value = value;
  }
  for (const list of form.querySelectorAll("select")) list.selectedIndex = Math.max(list.selectedIndex, 0);
  update();
}

// ---- The page

const failed = rows.filter((row) => row.error);
const kinds = tally(failed.map((row) => reason(row.error.kind))).map(([kind, number]) => `${count(number)} ${kind}`);
const total = rows.reduce((sum, row) => sum + (row.duration ?? 0), 0);
const [unit, size] = total < 60 ? ["s", 1] : total < 3600 ? ["min", 60] : ["h", 3600];
const amounts = [
  `${plural(rows.length - failed.length, "video")} labelled`,
  `${(total / size).toFixed(1)} ${unit} of video`,
];
if (failed.length) amounts.push(`${count(failed.length)} failed (${kinds.join(", ")})`);
if (run.raw) amounts.push("scores are mean logits");
for (const [group, labels] of Object.entries(run.groups)) amounts.push(visible(`${group}: ${labels.join(", ")}`));
if (rows.some((row) => row.films.includes(""))) {
  amounts.push(`browsers do not play some: the frames of the first ${count(run.most_films)} move, others stand still`);
}

document.title = `Video labels: ${visible(run.model)}`;
document.querySelector("#model").append(visible(run.model));
document.querySelector("#recipe").append(visible(run.recipe));
document.querySelector("time").append(run.date.slice(0, 16).replace("T", " "));
document.querySelector("#amounts").append(amounts.join(" · "));
form.querySelector("fieldset").hidden = !failed.length;
for (const [label, number] of tally(rows.flatMap((row) => [...row.labels.keys()]))) {
  form.elements.label.add(new Option(`${name(label)} (${count(number)})`, label));
}
form.addEventListener("input", update);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", remember); // not with every key: browsers allow a hundred in half a minute
form.querySelector("button").addEventListener("click", clear);
addEventListener("hashchange", restore);
document.addEventListener("keydown", press);
bar.querySelector("[name=download]").addEventListener("click", () => (corrections.download(), tell()));
bar.querySelector("[name=help]").addEventListener("click", () => keys.showModal());
bar.querySelector("[type=file]").addEventListener("change", loadFile);
keys.querySelector("button").addEventListener("click", () => keys.close());
keys.addEventListener("keydown", ({ key }) => key === "?" && keys.close());
for (const [key, second, text] of [...KEYS, ["← →", "", "Step through the frames of a video that is not played"]]) {
  const names = [key, { " ": "Space" }[second] ?? second].filter(Boolean);
  const shown = names.flatMap((each, at) => [...(at ? [" or "] : []), make("kbd", {}, each)]);
  keys.querySelector("dl").append(make("dt", {}, ...shown), make("dd", {}, text));
}
addEventListener("beforeunload", (event) => corrections.unsaved && event.preventDefault());
addEventListener("beforeprint", () => main.querySelectorAll("ol[start]").forEach(fill));
addEventListener("afterprint", update);
main.classList.toggle("pictured", pictured);
bar.hidden = !rows.length;
restore();
