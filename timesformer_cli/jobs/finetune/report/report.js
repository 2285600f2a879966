// ---- The report of a training run

const FIRST = 8; // labels to look at, before the rest

const { counts } = facts;

const MEASURED = {
  given: "They were given for validation, and not trained on.",
  "held out": "They were held out, and no video of their groups was trained on.",
  crossed:
    `This was measured by cross-validation in ${plural(counts.folds, "part")}: each video by a head that was trained ` +
    "without its group. The head of the model is trained on all of them.",
};

function showAccuracy() {
  const lead = find("#accuracy .lead");
  const videos = plural(counts.measured, "video");
  const found = summary.top_1?.accuracy;
  if (found) {
    const { value, low, high } = found;
    const interval = ` (95 % interval ${percent(low)} to ${percent(high)})`;
    lead.append("The new model labels ", make("b", {}, percent(value)), ` of ${videos} correctly${interval}. `);
  } else if (known(summary.mean_average_precision)) {
    const value = make("b", {}, percent(summary.mean_average_precision));
    lead.append("The mean average precision of the new model is ", value, ` on ${videos}. `);
  }
  lead.append(MEASURED[facts.how]);
}

function suspect({ label, probability, likelier, likelier_probability: likely, ...video }) {
  const own = make("p", { class: "answer" }, "labelled ", make("b", {}, name(label)), ` ${percent(probability)}`);
  return card(video, own, make("p", { class: "dim" }, "likelier ", make("b", {}, name(likelier)), ` ${percent(likely)}`));
}

function showSuspects() {
  const [first, more] = document.querySelectorAll("#suspects ol");
  const all = facts.suspects.map(suspect);
  first.append(...all.slice(0, FIRST));
  more.append(...all.slice(FIRST));
  find("#suspects summary").append(`${count(all.length - FIRST)} more`);
  find("#suspects details").hidden = all.length <= FIRST;
}

function showData() {
  find("#data ul").append(...facts.lines.map((line) => make("li", {}, make("bdi", {}, visible(line)))));
  const numbers = [
    ["For training", plural(counts.training, "video")],
    ["Measured", plural(counts.measured, "video")],
    ["Not readable", plural(counts.unreadable, "video")],
  ];
  find("#data dl").append(...terms([...numbers, ...facts.asked]));
  find("#data").append(...facts.left_out.map(leftOut));
}

function showTraining() {
  find("#training dl").append(...terms([...facts.protocol, ...conditions]));
  const rows = facts.candidates.map(({ c, loss }) => {
    const text = [String(c), loss.toFixed(4)];
    return row("td", c === facts.c ? text.map((cell) => make("b", {}, cell)) : text);
  });
  find("#candidates table").append(row("th", ["C", "Loss"]), ...rows);
}

// ---- The page

introduce("Fine-tuning of", facts.base, [
  `${plural(counts.training, "video")} for training`,
  `${count(names.length)} classes`,
  counts.unreadable && `${count(counts.unreadable)} not readable`,
]);
showSections([
  ["#steps", facts.trained],
  ["#learning", facts.curve],
  ["#suspects", facts.suspects.length],
  ["#candidates", facts.candidates.length],
]);
showAccuracy();
find("#learning .lead").append(visible(facts.advice));
showSuspects();
showNeighbours();
showData();
showTraining();
