// ---- The page of labels: its records lie in <script type="application/json"> elements, one in each

const CHUNK = 25; // rows that come and go together while the page is scrolled
const RANKS = 5; // labels of a video that are shown; further ones fold out
const FRAMES = 4; // frames of a timeline beside its path
const NONE = -1; // stands for the label of a video or a segment that has none
const OPEN = -2; // and for that of one whose answer was left open

const run = parse(document.querySelector("#run"));
const form = document.querySelector("form");
const main = document.querySelector("main");

// ---- Words and numbers

const score = (value) => (run.raw ? value.toFixed(2) : percent(value));

// Seconds as 0:07 or 1:02:03, or with tenths as 0:07.5.
function clock(seconds, tenths = false) {
  const units = Math.round(10 * (tenths ? seconds : Math.round(seconds)));
  const [hours, minutes, rest] = [units / 36000, (units / 600) % 60, (units / 10) % 60].map(Math.floor);
  const two = (number) => String(number).padStart(2, "0");
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(rest)}${tenths ? `.${units % 10}` : ""}`;
}

const length = (seconds) => (seconds < 60 ? `${seconds.toFixed(1)} s` : clock(seconds));

// ---- Labels, by their numbers in the model

const names = run.labels.map(visible);
const name = (label) => (label === NONE ? "no label" : label === OPEN ? "–" : names[label]);
const best = (part) => (part.abstained ? OPEN : (part.ranks[0]?.[0] ?? NONE));

// ---- Records

// What bars are long by. Logits have no bounds: the least and the greatest of the page stand for them.
let [least, greatest] = run.raw ? [0, 0] : [0, 1];

function read(script, order) {
  const row = { video: {}, parts: [], pictures: [], ...parse(script), order };
  [row.folder, row.file] = split(row.path);
  row.path = row.folder + row.file;
  row.duration = row.video.duration ?? undefined;
  const seconds = new Map(); // by labels that are the first of a part
  const words = new Set([row.path]);
  row.parts.forEach((part, position) => {
    // Windows may overlap: each is shown until the next begins.
    part.until = Math.min(part.end, row.parts[position + 1]?.start ?? Infinity);
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
const pictured = rows.some((row) => row.pictures.some(Boolean));
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
    ...(pictured ? [make("div", { class: "pictures" }, ...spread(row.pictures).map(picture))] : []),
    make("div", { class: "video" }, make("bdi", {}, path), make("p", { class: "facts" }, facts(row.video))),
    make("div", { class: "answer" }, ...answer(row)),
  );
}

// The picture of a video as a whole, or a few frames from all over a timeline.
function spread(pictures) {
  const there = pictures.filter(Boolean);
  if (there.length <= FRAMES) return there;
  return Array.from({ length: FRAMES }, (_, place) => there[Math.floor(((place + 0.5) * there.length) / FRAMES)]);
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
    const items = row.parts.map((part, position) => segment(row, part, row.pictures[position]));
    return make("ol", { class: "segments", tabindex: 0, "aria-label": `Segments of ${row.path}` }, ...items);
  });
  const show = (position) => {
    details.unfold(true);
    const segments = details.querySelector("ol");
    segments.querySelector("[aria-current]")?.removeAttribute("aria-current");
    segments.children[position].setAttribute("aria-current", "true");
    segments.scrollTop = segments.children[position].offsetTop;
  };
  const longest = [...row.labels].slice(0, RANKS);
  const key = longest.map(([label, seconds]) => make("li", {}, tag(label), ` ${length(seconds)}`));
  return [slider(row, show), make("ul", { class: "key" }, ...key), details];
}

function segment(row, part, data) {
  const time = link(row, `#t=${part.start},${part.end}`, span(part));
  const [value, ...others] = part.ranks.map(([label, value], at) =>
    make("span", { class: "score" }, ...(at ? [make("bdi", {}, name(label)), " "] : []), score(value)),
  );
  return make("li", {}, data ? picture(data) : "", time, tag(best(part)), value ?? "", make("p", {}, ...others));
}

function slider(row, show) {
  const { parts } = row;
  const end = Math.max(row.duration ?? 0, parts.at(-1).end) || 1;
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
    tip.replaceChildren(row.pictures[at] ? picture(row.pictures[at]) : "", span(part), tag(best(part)), value);
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
  element.addEventListener("click", (event) => (follow(event), show(at)));
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

// ---- The list: only what is near the window is there

let height = 120; // of a row, as far as is known

const observer = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => (isIntersecting ? fill : empty)(target)),
  { rootMargin: "1000px" },
);

function fill(chunk) {
  if (chunk.firstChild) return;
  chunk.append(...chunk.rows.map((row, place) => draw(row, chunk.start + place, chunk.all)));
  chunk.style.height = "";
  height = chunk.offsetHeight / chunk.rows.length;
}

function empty(chunk) {
  if (!chunk.firstChild || chunk.contains(document.activeElement)) return;
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
  const { text, label, status, sort } = Object.fromEntries(new FormData(form));
  if (sorted.by !== sort) sorted = { by: sort, rows: inOrder(sort) };
  const wanted = fold(text.trim());
  const shown = sorted.rows.filter(
    (row) =>
      row.text.includes(wanted) &&
      (!label || row.labels.has(Number(label))) &&
      (!status || status === (row.error ? "error" : "ok")),
  );
  list(shown);
  const part = shown.length < rows.length ? `${count(shown.length)} of ` : "";
  form.querySelector("output").value = part + plural(rows.length, "video");
  scrollTo(0, Math.min(scrollY, main.offsetTop - form.offsetHeight)); // to where the new list begins
  form.querySelector("button").disabled = !asked().length;
}

const asked = () => [...new FormData(form)].filter(([, value]) => value && value !== "order");
const remember = () => history.replaceState(null, "", `#${new URLSearchParams(asked())}`);

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
form.querySelector("button").addEventListener("click", () => (location.hash = ""));
addEventListener("hashchange", restore);
addEventListener("beforeprint", () => main.querySelectorAll("ol[start]").forEach(fill));
addEventListener("afterprint", update);
main.classList.toggle("pictured", pictured);
form.hidden = !rows.length;
restore();
