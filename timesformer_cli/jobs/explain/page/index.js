const facts = parse(document.querySelector("#facts"));
document.querySelector("#about").textContent = `${visible(facts.model)} · ${plural(facts.rows.length, "video")}`;
document.querySelector("tbody").append(
  ...facts.rows.map(({ path, page, label, score, summary, verdict }) => {
    const name = page ? make("a", { href: encodeURIComponent(page) }, visible(path)) : visible(path);
    const shown = label === null ? "" : `${visible(label)} ${percent(score)}`;
    return make(
      "tr",
      {},
      make("td", {}, name),
      make("td", {}, shown),
      make("td", page ? {} : { class: "failed" }, visible(summary)),
      make("td", {}, verdict ?? ""),
    );
  }),
);
