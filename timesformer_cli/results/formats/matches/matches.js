// ---- The page of a search: its answers lie in <script type="application/json"> elements, one in each

const EAGER = 60; // videos whose first frame is fetched at once; further ones wait until they are in view

const run = parse(document.querySelector("#run"));
const records = document.querySelector("#records");
const answers = Array.from(records.children, parse);
records.remove();

const total = answers.reduce((sum, answer) => sum + answer.matches.length, 0);
const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) target.preload = "metadata";
});

// A video that starts at its second; what the browser cannot play says so.
function player(url, name) {
  const made = new Player();
  made.load({ url, name: visible(name) }, { preload: total > EAGER ? "none" : "metadata" });
  if (total > EAGER && made.video) inView.observe(made.video);
  return made.element;
}

function named(path, url) {
  const [folder, file] = split(path);
  return make("bdi", {}, link({ url }, "", make("span", {}, folder), file));
}

function when({ start, end, time }) {
  if (time != null) return `at ${clock(time, true)}`;
  return start == null ? "" : `${clock(start, true)} – ${clock(end, true)}`;
}

function draw(match) {
  const chance = match.percentile == null ? "" : `above ${match.percentile.toFixed(1)} % of random pairs`;
  const facts = [when(match), `cosine ${match.cosine.toFixed(3)}`, chance].filter(Boolean).join(" · ");
  const title = make("p", { class: "video" }, `${match.rank}. `, named(match.path, match.url));
  return make("li", {}, player(match.url, match.path), title, make("p", { class: "facts" }, facts));
}

document.querySelector("#file").textContent = visible(run.file);
document.querySelector("#amounts").textContent =
  answers.length === 1 ? `matches: ${count(total)}` : `queries: ${count(answers.length)}`;
document.querySelector("main").append(
  ...answers.map((answer) => {
    const own = answer.url ? [make("div", { class: "query" }, player(answer.url, answer.query))] : [];
    const title = make("h2", {}, "Like ", make("bdi", {}, visible(answer.query)));
    const matches = answer.matches.map(draw);
    const found = matches.length ? make("ol", { class: "matches" }, ...matches) : make("p", {}, "No matches");
    return make("section", {}, title, ...own, found);
  }),
);
