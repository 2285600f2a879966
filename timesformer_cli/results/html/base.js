// What all documents share. Whatever their data says becomes text, never markup.

const parse = (script) => JSON.parse(script.textContent);
const collator = new Intl.Collator("en", { numeric: true });

// ---- Words and numbers

const count = (number) => number.toLocaleString("en");
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`;
const fold = (text) => text.normalize("NFKC").toLowerCase();
const reason = (kind) => kind.replaceAll("_", " ");

// Text with an escape for what cannot be seen or would turn the text around it; joiners belong to words and emoji.
function visible(text) {
  return text.replace(/(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu, (character) => {
    const code = character.codePointAt(0);
    // In a file name that is not UTF-8, each of these stands for a byte.
    const byte = code >= 0xdc80 && code <= 0xdcff;
    return byte ? `\\x${(code & 0xff).toString(16)}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

// A path as its folder and its name.
function split(path) {
  const cut = Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1;
  return [path.slice(0, cut), path.slice(cut)].map(visible);
}

// ---- Elements

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const picture = (data) => make("img", { src: `data:image/webp;base64,${data}`, alt: "" });
const link = ({ url }, hash, ...text) => (url ? make("a", { href: url + hash }, ...text) : make("span", {}, ...text));

