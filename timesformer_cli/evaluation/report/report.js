// ---- The report of an evaluation

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

// ---- Numbers

const METRICS = [
  ["mean_class_accuracy", "Mean class accuracy"],
  ["mean_average_precision", "Mean average precision"],
  ["expected_calibration_error", "Calibration error"],
];

function showNumbers() {
  const { published } = summary;
  const tops = Object.keys(summary).filter((key) => key.startsWith("top_") && summary[key].accuracy);
  const top = (key) => measured(`Top-${key.slice(4)} accuracy`, summary[key].accuracy, summary[key], published?.[key]);
  const lines = [
    ...tops.map(top),
    ...METRICS.filter(([key]) => known(summary[key])).map(([key, title]) => measured(title, summary[key])),
  ];
  const loss = summary.negative_log_likelihood;
  if (known(loss)) lines.push(["Negative log likelihood", make("b", {}, loss.toFixed(4)), "", "", "", ""]);
  const head = ["", "", "95 % interval", "Failures as wrong", "Published", "Difference"].slice(0, published ? 6 : 4);
  find("#numbers table").append(row("th", head), ...lines.map((cells) => row("td", cells.slice(0, head.length))));
  for (const cell of document.querySelectorAll("#numbers td")) cell.dataset.head = head[cell.cellIndex];
  find("#numbers dl").append(...terms(Object.entries(summary.definitions).map(([key, text]) => [reason(key), text])));
  find("#no-width").hidden = !summary.interval_note;
  find("#no-width").append(summary.interval_note ?? "");
  find("#numbers .note").hidden = !published;
  if (!published) return;
  const { checkpoint, data, clips, crops } = published;
  find("#numbers .note").append(
    `Published are the numbers of ${checkpoint} on ${data}, with ${seen(clips, crops)}. `,
    "Within: the published number lies in the interval that was found here.",
  );
  const { views } = facts;
  if (!views || (views.clips === clips && views.crops === crops)) return;
  const other = ` This run is another: ${seen(views.clips, views.crops)}.`;
  find("#numbers .note").append(make("b", { class: "over" }, other));
}

function seen(clips, crops) {
  const number = known(clips) ? plural(clips, "clip") : "as many clips as cover a video";
  return `${number} of ${plural(crops, "crop")}`;
}

function measured(title, found, { failures_as_wrong: failures, failures_as_wrong_interval: ends } = {}, published) {
  const { value, low, high } = typeof found === "number" ? { value: found } : found;
  const interval = known(low) ? [stretch(low, high)] : [];
  if (low < high) interval.push(scale(low, high, value, published?.value));
  const wrong = known(failures) ? [percent(failures, 2), summary.failed ? ` (${stretch(...ends)})` : ""] : "";
  const cells = [title, make("b", {}, percent(value, 2)), interval, wrong];
  if (!published) return [...cells, "", ""];
  const { difference, within_interval: within } = published;
  const verdict = make("span", { class: within ? "within" : "over" }, within ? "within" : "outside");
  const points = `${difference < 0 ? "−" : "+"}${Math.abs(100 * difference).toFixed(2)} `;
  return [...cells, percent(published.value, 2), [points, verdict]];
}

const stretch = (low, high) => `${percent(low, 2)} to ${percent(high, 2)}`;

// The interval as a stretch of a line, with a mark at the value and another at what was published.
function scale(low, high, value, published = low) {
  const [least, most] = [Math.min(low, published), Math.max(high, published)];
  const at = (share) => 6 + (88 * (share - least)) / (most - least || 1);
  const range = lay(make("span", { class: "range" }), { left: `${at(low)}%`, width: `${at(high) - at(low)}%` });
  const marks = [["published", published], ["value", value]].slice(published === low ? 1 : 0);
  const laid = marks.map(([kind, share]) => lay(make("span", { class: kind }), { left: `${at(share)}%` }));
  return make("span", { class: "scale", "aria-hidden": "true" }, range, ...laid);
}

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

const COLUMNS = [
  ["label", "Label"],
  ["videos", "Videos"],
  ["value", facts.multi_label ? "Average precision" : "Accuracy"],
  ["precision", "Precision"],
  ["taken", "Most often taken for"],
].slice(0, facts.multi_label ? 3 : 5);

function classRow({ videos, value, low, high, precision, taken = [] }, label) {
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
  const cells = [[name(label)], [count(videos)], [measure], [known(precision) ? percent(precision) : ""], others];
  return make("tr", {}, ...COLUMNS.map(([kind], place) => make("td", { class: kind }, ...cells[place])));
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
      [by, sign] = [column, by === column ? -sign : column === "videos" ? -1 : 1];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      list();
    });
    return head;
  });
  heads[2].setAttribute("aria-sort", "ascending");
  find("#classes thead").append(make("tr", {}, ...heads));
  find("#classes input").addEventListener("input", list);
  find("#classes form").addEventListener("submit", (event) => event.preventDefault());
  list();
}

// ---- Mistakes, what was left out, and the protocol

function mistake({ path, url, targets, answer, score, own, picture: data }) {
  const [folder, file] = split(path);
  const shown = (value) => (facts.raw ? value.toPrecision(4) : percent(value));
  const labels = targets.flatMap((label, place) => [place ? "; " : "", name(label)]);
  const rank = own ? ` ${shown(own.score)}, place ${count(own.rank)}` : "";
  return make(
    "li",
    {},
    make("div", { class: "picture" }, data ? picture(data) : "no picture"),
    make("p", { class: "answer" }, make("b", {}, name(answer)), ` ${shown(score)}`),
    make("p", { class: "dim" }, "is ", make("b", {}, ...labels), rank),
    make("p", { class: "video" }, make("bdi", {}, link({ url }, "", make("span", {}, folder), file))),
  );
}

function leftOut({ kind, failed, count: number, videos, file }) {
  const rows = videos.map(([place, message]) => row("td", [bdi(visible(place)), bdi(visible(message))]));
  if (number > videos.length) rows.push(row("td", [`${count(number - videos.length)} more, in ${file}`, ""]));
  const list = make("div", { class: "list", tabindex: 0, role: "region" }, make("table", {}, ...rows));
  return make("details", {}, make("summary", {}, `${count(number)} ${failed ? "failed: " : ""}${reason(kind)}`), list);
}

function showLeftOut() {
  const { listed, evaluated, left_out: others } = summary.counts;
  const rest = others ? ` ${count(others)} more were not asked for.` : "";
  find("#left-out .note").append(`${count(evaluated)} of ${plural(listed, "video")} were evaluated.${rest}`);
  find("#left-out").append(...facts.left_out.map(leftOut));
}

function showProtocol() {
  const lists = facts.protocols.flatMap((rows, place) => [
    ...(facts.protocols.length > 1 ? [make("h3", {}, `Model ${place + 1}`)] : []),
    make("dl", {}, ...terms(rows)),
  ]);
  const commands = facts.commands.map(visible).join("\n");
  const again = [make("h3", {}, "To make it again"), make("pre", {}, commands)];
  find("#protocol").append(...lists, make("dl", {}, ...terms(conditions)), ...again);
}

// ---- The page

const date = new Map(conditions).get("Finished")?.slice(0, 16).replace("T", " ");
const data = facts.data && visible(facts.data);
document.title = `Evaluation of ${visible(summary.model)}`;
find("#model").append(visible(summary.model));
const { evaluated, listed, failed } = summary.counts;
const videos = (evaluated < listed ? `${count(evaluated)} of ` : "") + plural(listed, "video");
find("#about").append([videos, failed && `${count(failed)} failed`, data, date].filter(Boolean).join(" · "));
find(".warning").append(visible(summary.warning ?? ""));
find(".warning").hidden = !summary.warning;
for (const [section, shown] of [
  ["#curves", facts.cells && !facts.raw],
  ["#confusion", facts.cells],
  ["#classes", classes.length],
  ["#mistakes", facts.mistakes.length],
]) {
  find(section).hidden = !shown;
}
showNumbers();
if (facts.cells) showConfusion();
showClasses();
find("#mistakes ol").append(...facts.mistakes.map(mistake));
showLeftOut();
showProtocol();
