// ---- Corrections: what a person said of the videos and segments, kept by the browser and as a CSV file

const COLUMNS = ["path", "start", "end", "label", "was", "score", "reviewed_at"];
const SAVED = "\0"; // the key of when the file was downloaded: no path is so
const UNTIL_CLOSED = "Corrections are kept only until this page is closed: download them before.";

// What a browser keeps for a page, as texts by keys; those of all pages of a folder may lie in one store.
class Store {
  problem = "";
  #prefix;

  constructor(key) {
    this.#prefix = `timesformer ${key} `;
  }

  *entries() {
    const keys = this.#try(() => Object.keys(localStorage)) ?? [];
    for (const key of keys.filter((key) => key.startsWith(this.#prefix))) {
      yield [key.slice(this.#prefix.length), localStorage.getItem(key)];
    }
  }

  set(key, text) {
    this.#try(() => localStorage.setItem(this.#prefix + key, text));
  }

  delete(key) {
    this.#try(() => localStorage.removeItem(this.#prefix + key));
  }

  #try(action) {
    try {
      return action();
    } catch (error) {
      const full = error.name === "QuotaExceededError";
      this.problem = `${full ? "The storage of this browser is full." : "This browser does not let pages keep anything."} ${UNTIL_CLOSED}`;
    }
  }
}

// Corrections of `parts`, each with a `key`, its `path` and times (`from` and `to`), the label that it `was` given, and
// the `score` of that. A corrected part has a `correction`: its `label`, empty if unsure, and when it was made (`at`).
class Corrections {
  #parts;
  #store;
  #past = []; // what can be undone: parts, and the corrections they had
  #saved = ""; // when the file was downloaded
  count = 0;
  unsaved = false;

  constructor(store, parts) {
    this.#store = store;
    // A file of bytes that are not UTF-8 is read with another character for each.
    this.#parts = new Map(parts.map((part) => [part.key.toWellFormed(), part]));
    for (const [key, text] of store.entries()) {
      if (key === SAVED) this.#saved = text;
      else this.#restore(this.#parts.get(key.toWellFormed()), text);
    }
    this.unsaved = parts.some(({ correction }) => correction && correction.at > this.#saved);
  }

  get all() {
    return [...this.#parts.values()].filter((part) => part.correction);
  }

  // Labels that were given and are none of `known`.
  newNames(known) {
    return new Set(this.all.map((part) => part.correction.label).filter((label) => label && !known.has(label)));
  }

  make(part, label) {
    this.#past.push([part, part.correction]);
    this.#put(part, { label, at: new Date().toISOString() });
    this.unsaved = true;
  }

  // Take the last correction back, and return its part.
  undo() {
    const [part, before] = this.#past.pop() ?? [];
    if (!part) return undefined;
    this.#put(part, before);
    this.unsaved = true;
    return part;
  }

  download() {
    const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
    const rows = this.all.map(({ path, from, to, was, score, correction: { label, at } }) =>
      [path, from, to, label, was, score, at].map((value) => cell(String(value ?? ""))),
    );
    const text = [COLUMNS, ...rows].map((row) => `${row.join(",")}\r\n`).join("");
    // In a file name that is not UTF-8, each of these stands for a byte.
    const pieces = text.split(/([\udc80-\udcff])/u);
    const bytes = pieces.map((piece, place) => (place % 2 ? Uint8Array.of(piece.charCodeAt(0) & 0xff) : piece));
    const url = URL.createObjectURL(new Blob(bytes, { type: "text/csv" }));
    make("a", { href: url, download: "corrections.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    this.unsaved = false;
    this.#saved = new Date().toISOString();
    this.#store.set(SAVED, this.#saved);
  }

  // Take over the rows of a downloaded file, unless there is a later correction; returns what to say of it.
  load(text, name) {
    const [header, ...rows] = cells(text);
    const places = COLUMNS.map((column) => (header ?? []).indexOf(column));
    if (places.includes(-1)) return `${name}: is no file of corrections; expected the columns ${COLUMNS.join(", ")}`;
    let known = 0;
    for (const row of rows) {
      const [path, start, end, label, , , at] = places.map((place) => row[place] ?? "");
      const part = this.#parts.get(keyOf(path, start, end));
      if (!part) continue;
      known += 1;
      if (!(part.correction?.at > at)) this.#put(part, { label, at });
    }
    this.#past = [];
    if (!known) return `${name}: none of its ${plural(rows.length, "row")} is of a video on this page`;
    const rest = rows.length - known;
    return `${name}: ${plural(known, "correction")} loaded${rest ? `, ${plural(rest, "row")} left out: not on this page` : ""}`;
  }

  #put(part, correction) {
    this.count += Boolean(correction) - Boolean(part.correction);
    part.correction = correction;
    if (correction) this.#store.set(part.key, JSON.stringify(correction));
    else this.#store.delete(part.key);
  }

  #restore(part, text) {
    if (!part) return;
    part.correction = JSON.parse(text);
    this.count += 1;
  }
}

// What identifies a part: its path and times, as numbers or as text; empty or null for a video as a whole.
function keyOf(path, start, end) {
  const times = [start, end].map((time) => (time == null || time === "" ? "" : Number(time)));
  return times.some((time) => time !== "") ? `${path}\0${times.join("\0")}` : path;
}

// The rows of a text of CSV.
function cells(text) {
  const rows = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g)) {
    rows.at(-1).push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (end !== ",") rows.push([]);
  }
  return rows.filter((row) => row.some(Boolean));
}

// ---- Labels to choose from

// A name as words after spaces: " pull ups".
const asWords = (name) => ` ${fold(name).replace(/[^\p{L}\p{N}]+/gu, " ").trim()}`;

// Whether words begin with these beginnings, in this order: "pl gu" are of "playing guitar".
function begin(words, beginnings) {
  let at = 0;
  return beginnings.every((beginning) => (at = words.indexOf(` ${beginning}`, at) + 1) > 0);
}

// Those of `names`, each with its `words`, that are what was typed; then those whose words begin so; then those that
// contain it; each in the given order.
function narrowed(names, typed) {
  const wanted = asWords(typed);
  if (wanted === " ") return names;
  const beginnings = wanted.trim().split(" ");
  const found = [[], [], []];
  for (const name of names) {
    const { words } = name;
    if (words === wanted) found[0].push(name);
    else if (begin(words, beginnings)) found[1].push(name);
    else if (words.includes(wanted.slice(1))) found[2].push(name);
  }
  return found.flat();
}
