// ---- What the reports of `evaluate` and `finetune` share

const [facts, conditions] = ["#facts", "#conditions"].map((id) => parse(document.querySelector(id)));
const { summary, classes } = facts;
const names = facts.labels.map(visible);
const find = (selector) => document.querySelector(selector);
const bdi = (text) => make("bdi", {}, text);
const name = (label) => bdi(names[label]);
const known = (value) => value !== null && value !== undefined;

function lay(element, properties) {
  Object.assign(element.style, properties);
  return element;
}

const row = (tag, cells) => make("tr", {}, ...cells.map((cell) => make(tag, {}, ...[cell].flat())));
const terms = (pairs) => pairs.flatMap(([term, text]) => [make("dt", {}, term), make("dd", {}, bdi(visible(text)))]);

// ---- The map of confusion: a row for each label, a column for each answer, darker the larger their share of the row

const LETTER = 6.5; // pixels, on the whole
const LEVELS = 12; // of darkness
const REACH = 8; // pixels around the pointer in which a mistake is looked for

const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

class ConfusionMap {
  constructor(svg, output) {
    [this.svg, this.output] = [svg, output];
    this.counts = new Map(facts.cells.map(([target, answer, videos]) => [`${target} ${answer}`, videos]));
    this.used = new Set(facts.cells.flatMap(([target, answer]) => [target, answer]));
    for (const type of ["pointermove", "pointerdown"]) svg.addEventListener(type, (event) => this.point(event));
    svg.addEventListener("keydown", (event) => this.press(event));
  }

  arrange(order) {
    this.order = order.filter((label) => this.used.has(label));
    this.places = new Map(this.order.map((label, place) => [label, place]));
    this.draw();
  }

  draw() {
    const width = Math.floor(this.svg.clientWidth);
    const longest = Math.max(...this.order.map((label) => names[label].length));
    const room = Math.min(LETTER * longest, 0.3 * width) + 10;
    const named = (width - room) / this.order.length >= 14;
    this.margin = named ? room : 20;
    this.cell = (width - this.margin - 1) / this.order.length;
    const side = this.cell * this.order.length;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${width}`);
    this.svg.replaceChildren(
      draw("rect", { class: "ground", x: this.margin, y: this.margin, width: side, height: side }),
      ...this.shades(),
      ...(this.cell >= 22 ? facts.cells.map((cell) => this.figure(cell)) : []),
      ...(named ? this.order.flatMap((label) => this.title(names[label], label)) : this.axes(width)),
      draw("path", { class: "cross" }),
    );
    if (this.shown) this.show(...this.shown);
  }

  start = (label) => this.margin + this.cell * this.places.get(label);

  middle = (label) => this.start(label) + this.cell / 2;

  // All cells of one shade are one path. No mistake is so small that it could not be seen.
  shades() {
    const paths = new Map();
    for (const [target, answer, videos] of facts.cells) {
      const level = Math.ceil(LEVELS * Math.sqrt(videos / classes[target].videos));
      const kind = `${target === answer ? "right" : "wrong"} ${level}`;
      const side = (target === answer ? this.cell : Math.max(this.cell, 2)).toFixed(2);
      const [x, y] = [answer, target].map((label) => (this.middle(label) - side / 2).toFixed(2));
      paths.set(kind, `${paths.get(kind) ?? ""}M${x} ${y}h${side}v${side}h-${side}z`);
    }
    return Array.from(paths, ([kind, d]) => {
      const [right, level] = kind.split(" ");
      return draw("path", { class: right, "fill-opacity": level / LEVELS, d });
    });
  }

  figure([target, answer, videos]) {
    const kind = videos / classes[target].videos > 0.4 ? "figure deep" : "figure";
    return draw("text", { class: kind, x: this.middle(answer), y: this.middle(target) }, videos);
  }

  title(text, label) {
    const letters = Math.floor((this.margin - 10) / LETTER);
    const short = text.length > letters ? `${text.slice(0, letters - 1)}…` : text;
    const [near, middle] = [this.margin - 6, this.middle(label)];
    const up = { class: "up", transform: `translate(${middle} ${near}) rotate(-90)` };
    return [draw("text", { class: "side", x: near, y: middle }, short), draw("text", up, short)];
  }

  axes(width) {
    const up = { class: "up", transform: `translate(10 ${width}) rotate(-90)` };
    return [draw("text", { x: this.margin, y: 10 }, "answer"), draw("text", up, "label")];
  }

  show(target, answer) {
    this.shown = [target, answer];
    const [x, y] = [this.start(answer), this.start(target)];
    const cross = `M${this.margin} ${this.middle(target)}H${x}M${this.middle(answer)} ${this.margin}V${y}`;
    this.svg.lastChild.setAttribute("d", `M${x} ${y}h${this.cell}v${this.cell}h-${this.cell}z${cross}`);
    const { videos } = classes[target];
    const number = this.counts.get(`${target} ${answer}`) ?? 0;
    const share = videos ? `: ${count(number)} of ${count(videos)}, ${percent(number / videos)}` : ": no videos";
    const what = target === answer ? [name(target), " is right"] : [name(target), " taken for ", name(answer)];
    this.output.replaceChildren(...what, share);
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const scale = this.svg.viewBox.baseVal.width / box.width;
    const [x, y] = [scale * (event.clientX - box.left), scale * (event.clientY - box.top)];
    const [column, line] = [x, y].map((length) => this.order[Math.floor((length - this.margin) / this.cell)]);
    if (column === undefined || line === undefined) return;
    this.show(...((this.cell < 2 * REACH && this.nearest(x, y)) || [line, column]));
  }

  nearest(x, y) {
    let [best, least] = [undefined, REACH];
    for (const [target, answer] of facts.cells) {
      const distance = Math.max(Math.abs(this.middle(answer) - x), Math.abs(this.middle(target) - y));
      if (distance < least) [best, least] = [[target, answer], distance];
    }
    return best;
  }

  // Up and down go to the next label, left and right to another answer to it.
  press(event) {
    const labels = this.order.filter((label) => classes[label].videos);
    const [target, answer] = this.shown ?? [labels[0], labels[0]];
    const answers = this.order.filter((label) => this.counts.has(`${target} ${label}`));
    const step = (list, from, by) => list[Math.min(Math.max(list.indexOf(from) + by, 0), list.length - 1)];
    const [down, right] = [
      { ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity }[event.key],
      { ArrowLeft: -1, ArrowRight: 1 }[event.key],
    ];
    if (!down && !right) return;
    event.preventDefault();
    if (right) return this.show(target, step(answers, answer, right));
    const next = step(labels, target, down);
    this.show(next, classes[next].taken[0]?.[0] ?? next);
  }
}

function showConfusion() {
  const svg = find(".map").appendChild(draw("svg", { tabindex: 0, role: "application" }));
  svg.setAttribute("aria-label", "Map of confusion: up and down go to the next label, left and right to its answers");
  const map = new ConfusionMap(svg, find("#confusion output"));
  const numbers = names.map((_, label) => label);
  const orders = {
    alike: facts.alike,
    number: numbers,
    accuracy: numbers.toSorted((a, b) => (classes[a].value ?? 2) - (classes[b].value ?? 2)),
  };
  const arrange = () => map.arrange(orders[find("#confusion select").value]);
  find("#confusion select").addEventListener("change", arrange);
  arrange();
  new ResizeObserver(() => map.draw()).observe(svg);
  const pairs = summary.most_confused.map(({ label, predicted, videos, share }) => {
    const all = Math.round(videos / share);
    return row("td", [bdi(visible(label)), bdi(visible(predicted)), `${count(videos)} of ${count(all)}`]);
  });
  find("#confusion .list").parentElement.hidden = !pairs.length;
  find("#confusion table").append(row("th", ["Label", "Answer", "Videos"]), ...pairs);
}

// ---- Classes

const trained = classes.some(({ training }) => known(training));
const COLUMNS = [
  ["label", "Label"],
  trained && ["training", "For training"],
  ["videos", trained ? "Measured" : "Videos"],
  ["value", facts.multi_label ? "Average precision" : "Accuracy"],
  !facts.multi_label && ["precision", "Precision"],
  !facts.multi_label && ["taken", "Most often taken for"],
].filter(Boolean);

function classRow({ training, videos, value, low, high, precision, taken = [] }, label) {
  const bar = make("span", { class: "bar" });
  const score = make("span", { class: "score" });
  if (known(value)) {
    bar.append(lay(make("span", {}), { width: `${100 * value}%` }));
    score.append(percent(value));
  }
  if (known(low)) {
    bar.append(lay(make("span", { class: "range" }), { left: `${100 * low}%`, width: `${100 * (high - low)}%` }));
    score.append(make("span", { class: "dim" }, ` ${(100 * low).toFixed(0)} to ${(100 * high).toFixed(0)}`));
  }
  const others = taken.flatMap(([other, times], place) => [place ? ", " : "", name(other), ` ${count(times)}`]);
  const measure = make("div", { class: "measure" }, bar, score);
  const cells = {
    label: [name(label)],
    training: [known(training) ? count(training) : ""],
    videos: [count(videos)],
    value: [measure],
    precision: [known(precision) ? percent(precision) : ""],
    taken: others,
  };
  return make("tr", {}, ...COLUMNS.map(([kind]) => make("td", { class: kind }, ...cells[kind])));
}

function showClasses() {
  const lines = classes.map((found, label) => {
    const text = names[label];
    return { ...found, label: text, folded: fold(text), element: classRow(found, label) };
  });
  let [by, sign] = ["value", 1];
  const list = () => {
    const wanted = fold(find("#classes input").value.trim());
    const shown = lines
      .filter(({ folded }) => folded.includes(wanted))
      .sort(({ [by]: a }, { [by]: b }) => {
        if (!known(a) || !known(b)) return known(b) - known(a);
        return sign * (typeof a === "string" ? collator.compare(a, b) : a - b);
      });
    find("#classes tbody").replaceChildren(...shown.map(({ element }) => element));
    const part = shown.length < lines.length ? `${count(shown.length)} of ` : "";
    find("#classes output").value = `${part}${count(lines.length)} classes`;
  };
  const heads = COLUMNS.map(([column, title]) => {
    if (column === "taken") return make("th", { class: column }, title);
    const button = make("button", { type: "button" }, title);
    const head = make("th", { class: column }, button);
    button.addEventListener("click", () => {
      [by, sign] = [column, by === column ? -sign : ["training", "videos"].includes(column) ? -1 : 1];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      list();
    });
    return head;
  });
  heads[COLUMNS.findIndex(([column]) => column === by)].setAttribute("aria-sort", "ascending");
  find("#classes thead").append(make("tr", {}, ...heads));
  find("#classes input").addEventListener("input", list);
  find("#classes form").addEventListener("submit", (event) => event.preventDefault());
  list();
}

// ---- Videos

const several = (labels) => labels.flatMap((label, place) => [place ? "; " : "", name(label)]);

// What the model saw of a video, lines about it, and where it is.
function card({ path, part, url, picture: data }, ...lines) {
  const [folder, file] = split(path);
  const seen = make("div", { class: "picture" }, data ? picture(data) : "no picture");
  const where = make("bdi", {}, link({ url }, "", make("span", {}, folder), file));
  return make("li", {}, seen, ...lines, make("p", { class: "video" }, where, part ? `, ${part}` : ""));
}

// Videos whose nearest neighbours have another label; the section is hidden if there are none.
function showNeighbours() {
  const { disagreeing, neighbours, agreeing } = facts;
  find("#neighbours").hidden = !disagreeing.length;
  find("#neighbours .note").append(
    `Videos of whose ${neighbours} most similar videos at least ${agreeing} have another label, the same one. ` +
      "Similarity is that of the vectors of the network. " +
      "A label may be wrong, or the video unusual.",
  );
  const cards = disagreeing.map(({ label, theirs, votes, nearest, ...video }) => {
    const own = make("p", { class: "answer" }, "labelled ", make("b", {}, name(label)));
    const others = [`${votes} of ${neighbours} are `, make("b", {}, name(theirs)), ", such as ", bdi(visible(nearest))];
    return card(video, own, make("p", { class: "dim" }, ...others));
  });
  find("#neighbours ol").append(...cards);
}

function leftOut({ kind, failed, count: number, videos, file }) {
  const rows = videos.map(([place, message]) => row("td", [bdi(visible(place)), bdi(visible(message))]));
  if (number > videos.length) rows.push(row("td", [`${count(number - videos.length)} more, in ${file}`, ""]));
  const list = make("div", { class: "list", tabindex: 0, role: "region" }, make("table", {}, ...rows));
  return make("details", {}, make("summary", {}, `${count(number)} ${failed ? "failed: " : ""}${reason(kind)}`), list);
}


// ---- The page

// The title, which is `what` of a `model`, and a line about the run.
function introduce(what, model, parts) {
  const date = new Map(conditions).get("Finished")?.slice(0, 16).replace("T", " ");
  document.title = `${what} ${visible(model)}`;
  find("h1 bdi").append(visible(model));
  find("#about").append([...parts, facts.data && visible(facts.data), date].filter(Boolean).join(" · "));
  find(".warning").append(visible(summary.warning ?? ""));
  find(".warning").hidden = !summary.warning;
}

// Hide the sections without content, and fill those that all reports have; `others` are the page's own.
function showSections(others) {
  const shared = [
    ["#curves", facts.cells && !facts.raw],
    ["#confusion", facts.cells],
    ["#classes", classes.length],
  ];
  for (const [section, shown] of [...shared, ...others]) find(section).hidden = !shown;
  if (facts.cells) showConfusion();
  showClasses();
}
