const facts = parse(document.querySelector("#facts"));
const $ = (selector) => document.querySelector(selector);
const FOR = "240, 130, 20";
const AGAINST = "40, 110, 235";
const LEAST = 0.1; // bars are full from this importance on: small ones should look small

function drawn(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// ---- What can be chosen: a map of an explanation, or one beside that of the first

const choices = [
  ...facts.explanations.map((explanation, number) => {
    const title = explanation.versus ? `${explanation.label} versus ${explanation.versus}` : explanation.label;
    return { title, number, map: explanation.map };
  }),
  ...facts.contrasts.map((map) => ({ title: map.title, number: 0, map, contrast: true })),
];
const state = { choice: 0, frame: 0, alpha: facts.alpha, timer: 0 };
const video = new Player();
let played = null; // the part of the video that is loaded
const chosen = () => choices[state.choice];
const view = () => facts.views[chosen().number];
const explanation = () => facts.explanations[chosen().number];

const images = facts.views.map(({ frames }) =>
  frames.map(({ picture: data }) => {
    const image = picture(data);
    image.addEventListener("load", draw);
    return image;
  }),
);

// ---- The frame with its heat

const canvas = $("canvas");

function draw() {
  const { size, box, frames } = view();
  const [width, height] = size;
  canvas.width = width;
  canvas.height = height;
  const image = images[chosen().number][state.frame];
  if (!image.complete) return;
  const context = canvas.getContext("2d");
  const [left, top, right, bottom] = box.map((share, axis) => share * size[axis % 2]);
  context.filter = "grayscale(1) opacity(0.5)";
  context.drawImage(image, 0, 0, width, height);
  context.filter = "none";
  context.save();
  context.beginPath();
  context.rect(left, top, right - left, bottom - top);
  context.clip();
  context.drawImage(image, 0, 0, width, height);
  const rows = chosen().map?.shown[state.frame] ?? [];
  rows.forEach((row, r) =>
    row.forEach((value, c) => {
      const high = (bottom - top) / rows.length;
      const wide = (right - left) / row.length;
      context.fillStyle = `rgba(${value < 0 ? AGAINST : FOR}, ${(Math.abs(value) / 99) * state.alpha})`;
      context.fillRect(left + c * wide, top + r * high, wide, high);
    }),
  );
  context.restore();
  const { number, time } = frames[state.frame];
  $("#place").textContent = `frame ${number}, ${time.toFixed(2)} s (${state.frame + 1} of ${frames.length})`;
}

canvas.addEventListener("pointermove", (event) => {
  const { map } = chosen();
  if (!map) return;
  const { box } = view();
  const area = canvas.getBoundingClientRect();
  const x = ((event.clientX - area.left) / area.width - box[0]) / (box[2] - box[0]);
  const y = ((event.clientY - area.top) / area.height - box[1]) / (box[3] - box[1]);
  const rows = map.values[state.frame];
  const value = rows[Math.floor(y * rows.length)]?.[Math.floor(x * rows[0].length)];
  $("#value").textContent =
    value === undefined
      ? "The model never saw this part."
      : `row ${Math.floor(y * rows.length)}, column ${Math.floor(x * rows[0].length)}: ${((value / 99) * map.scale).toPrecision(2)}`;
});
canvas.addEventListener("pointerleave", () => ($("#value").textContent = ""));

// ---- Tabs, sliders and bars

function show() {
  const { map, contrast, title } = chosen();
  const found = explanation();
  $("#label").textContent = visible(title);
  document.querySelectorAll("#tabs button").forEach((tab, n) => tab.setAttribute("aria-pressed", n === state.choice));
  $("#summary").textContent = visible(found.summary);
  $("#view").textContent = found.view;
  $("#total").textContent = map?.total ?? "";
  $("#importances").textContent = `Frames: ${found.importances}.`;
  const verdict = $("#verdict");
  verdict.className = !map || contrast || map.verdict === "not checked" ? "" : map.passed ? "passed" : "failed";
  verdict.textContent = contrast
    ? `Map (${map.method}): only that of ${facts.explanations[0].label} was checked.`
    : map
      ? `Map (${map.method}): ${found.maps}.`
      : `Map: ${found.maps}.`;
  state.frame = Math.min(state.frame, view().frames.length - 1);
  form.frame.max = view().frames.length - 1;
  fillVideo();
  fillBars();
  fillAltered(found);
  fillCheck(contrast ? null : map?.check);
  moved();
}

function moved() {
  form.frame.value = state.frame;
  document.querySelectorAll("#bars button").forEach((bar, n) => bar.setAttribute("aria-pressed", n === state.frame));
  draw();
}

// The video itself, from the first to the last frame that the model saw.
function fillVideo() {
  const { size, part } = view();
  if (!facts.plays || !facts.url || part === played) return;
  played = part;
  $("#video").hidden = false;
  video.load({ url: facts.url + part, name: visible(facts.path), ratio: size[0] / size[1] });
}

function fillBars() {
  const { importance } = explanation();
  const most = Math.max(LEAST, ...importance.map(Math.abs));
  $("#bars").replaceChildren(
    ...view().frames.map(({ number, time }, place) => {
      const value = importance[place];
      const tall = Math.max((40 * Math.abs(value)) / most, 1);
      const bar = drawn("rect", { x: 0, y: 40 - tall, width: 20, height: tall, class: value < 0 ? "against" : "for" });
      const button = make(
        "button",
        { type: "button", title: `frame ${number}, ${time.toFixed(2)} s: ${value.toFixed(3)}` },
        drawn("svg", { viewBox: "0 0 20 40", preserveAspectRatio: "none", "aria-hidden": "true" }, bar),
        value.toFixed(2).replace("-0.00", "0.00"),
      );
      button.addEventListener("click", () => {
        state.frame = place;
        moved();
      });
      return button;
    }),
  );
}

function fillAltered({ score, strip, altered, label }) {
  const row = (title, own, text, data) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, title, make("br", {}), make("b", {}, percent(own))),
      make("td", {}, picture(data), visible(text)),
    );
  $("#altered tbody").replaceChildren(
    row("as it is", score, label, strip),
    ...altered.map((each) => {
      const now = each.label === label ? "" : ` (first label: ${each.label}, ${percent(each.label_score)})`;
      return row(each.title, each.score, each.meaning + now, each.strip);
    }),
  );
}

// ---- The curves of the check

function fillCheck(check) {
  $("#check").hidden = !check;
  if (!check) return;
  const points = (scores) => scores.map((score, n) => `${30 + (200 * n) / (scores.length - 1)},${110 - 100 * score}`);
  const line = (scores, kind) => drawn("polyline", { class: kind, points: points(scores).join(" ") });
  const between = ([low, high]) =>
    drawn("polygon", { class: "band", points: [...points(low), ...points(high).reverse()].join(" ") });
  const word = (x, y, text, anchor = "middle") => drawn("text", { x, y, "text-anchor": anchor }, text);
  const signed = (gap) => `${gap < 0 ? "\u2212" : "+"}${Math.abs(gap).toFixed(2)}`;
  const figures = Object.entries(check.deletion).map(([fill, deletion]) => {
    const random = check.random?.[fill];
    const band = check.random_band?.[fill];
    const beside = random
      ? ` (gray band: random orders ${signed(Math.min(...random))} to ${signed(Math.max(...random))}; nearness to the centre ${signed(check.centre[fill])})`
      : "";
    const svg = drawn(
      "svg",
      { viewBox: "0 0 240 130", role: "img", "aria-label": `Score as patches become ${fill}` },
      drawn("path", { class: "axis", d: "M30 10V110H230" }),
      word(26, 14, "1", "end"),
      word(26, 113, "0", "end"),
      word(130, 126, `patches that became ${fill}: none to all`),
      ...(band ? [between(band)] : []),
      line(check.reverse[fill], "against"),
      line(deletion, "for"),
    );
    return make("figure", {}, svg, make("figcaption", {}, `${fill}: gap ${signed(check.gap[fill])}${beside}`));
  });
  const untrained = check.untrained_correlation;
  if (untrained !== undefined) {
    const text = `Rank correlation with the map of the same network with random weights: ${untrained.toFixed(2)}. Low is right.`;
    figures.push(make("p", {}, text));
  }
  $("#curves").replaceChildren(...figures);
}

// ---- Start

const form = $("#player form");
form.alpha.value = state.alpha;
form.frame.addEventListener("input", () => {
  state.frame = Number(form.frame.value);
  moved();
});
form.alpha.addEventListener("input", () => {
  state.alpha = Number(form.alpha.value);
  draw();
});
form.play.addEventListener("click", () => {
  if (state.timer) {
    clearInterval(state.timer);
    state.timer = 0;
  } else {
    state.timer = setInterval(() => {
      state.frame = (state.frame + 1) % view().frames.length;
      moved();
    }, 400);
  }
  form.play.textContent = state.timer ? "Stop" : "Play";
});
$("#tabs").replaceChildren(
  ...choices.map(({ title }, number) => {
    const tab = make("button", { type: "button" }, visible(title));
    tab.addEventListener("click", () => {
      state.choice = number;
      show();
    });
    return tab;
  }),
);
$("#tabs").hidden = choices.length < 2;
$("#video").append(video.element);
const [folder, name] = split(facts.path);
$("#about").append(
  link(facts, "", folder, name),
  ` · ${visible(facts.model)} · ${facts.explanations.map(({ label, score }) => `${visible(label)} ${percent(score)}`).join(", ")}`,
);
$("#caveat").textContent = facts.caveat;
show();
