// ---- The report of an evaluation

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

// ---- Mistakes, what was left out, and the protocol

function mistake({ targets, answer, score, own, page, ...video }) {
  const shown = (value) => (facts.raw ? value.toPrecision(4) : percent(value));
  const rank = own ? ` ${shown(own.score)}, place ${count(own.rank)}` : "";
  const said = make("p", { class: "answer" }, make("b", {}, name(answer)), ` ${shown(score)}`);
  if (page) said.append(" ", make("a", { href: page }, "why?"));
  return card(video, said, make("p", { class: "dim" }, "is ", make("b", {}, ...several(targets)), rank));
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
  find("#protocol").append(...lists, make("dl", {}, ...terms(conditions)));
  if (!facts.commands.length) return;
  const commands = facts.commands.map(visible).join("\n");
  find("#protocol").append(make("h3", {}, "To make it again"), make("pre", {}, commands));
}

// ---- The page

const { evaluated, listed, failed } = summary.counts;
const videos = (evaluated < listed ? `${count(evaluated)} of ` : "") + plural(listed, "video");
introduce("Evaluation of", summary.model, [videos, failed && `${count(failed)} failed`]);
showSections([["#mistakes", facts.mistakes.length]]);
showNumbers();
find("#mistakes ol").append(...facts.mistakes.map(mistake));
showNeighbours();
showLeftOut();
showProtocol();
