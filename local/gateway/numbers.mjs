// Numbers that JavaScript cannot hold as they are written: 9007199254740993, 1e400, 1.10. Postgres' JSON and numeric
// keep them, and so does PostgREST. Between Postgres and the answer such a number is a string that nobody else can
// have written; lite passes it on, and the answer's text gets the number back.
import { randomBytes } from "node:crypto";

const MARK = `~${randomBytes(12).toString("hex")}~`; // plain letters: it may stand in a header
const QUOTE = 34;
const MINUS = 45;
const NUMBER_CODES = new Set([..."0123456789+-.eE"].map((character) => character.charCodeAt(0)));
const isDigit = (code) => code >= 48 && code <= 57;
const SUSPICIOUS = /\d{16}|\d[.eE]|-0/;
const DIGITS = /^[-+.\deE]+$/;
const MARKED = new RegExp(`("{0,2})${MARK}([-+.\\deE]+)\\1`, "g"); // two quotation marks: JSON in a cell of CSV

const isExact = (number) => String(Number(number)) === number;

/** A number of Postgres: JavaScript's where that says the same, else marked. NaN and Infinity are words in JSON. */
export const numberOf = (text) => (!DIGITS.test(text) ? text : isExact(text) ? Number(text) : MARK + text);

export const parseJson = (text) => JSON.parse(SUSPICIOUS.test(text) ? marked(text) : text);

/** A scan, and no regular expression: bodies are long, and somebody else's. */
function marked(text) {
  const parts = [];
  let done = 0;
  for (let at = 0; at < text.length;) {
    const start = at;
    const code = text.charCodeAt(at++);
    if (code === QUOTE) at = afterText(text, at);
    else if (code === MINUS || isDigit(code)) {
      while (NUMBER_CODES.has(text.charCodeAt(at))) at++;
      const number = text.slice(start, at);
      if (isExact(number)) continue;
      parts.push(text.slice(done, start), `"${MARK}${number}"`);
      done = at;
    }
  }
  return parts.join("") + text.slice(done);
}

function afterText(text, start) {
  for (let end = text.indexOf('"', start); end >= 0; end = text.indexOf('"', end + 1)) {
    let escapes = 0;
    while (end - escapes > start && text[end - escapes - 1] === "\\") escapes++;
    if (escapes % 2 === 0) return end + 1;
  }
  return text.length;
}

export const withNumbers = (text) => (text.includes(MARK) ? text.replace(MARKED, "$2") : text);

/** The same answer with its numbers as Postgres wrote them. */
export async function exactAnswer(answer) {
  const location = answer.headers.get("location");
  if (location?.includes(MARK)) answer.headers.set("location", withNumbers(location));
  if (!answer.body) return answer;
  let bytes = Buffer.from(await answer.arrayBuffer());
  const headers = new Headers(answer.headers);
  if (bytes.includes(MARK)) {
    bytes = Buffer.from(withNumbers(bytes.toString()));
    headers.set("content-length", String(bytes.length));
  }
  return new Response(bytes, { status: answer.status, headers });
}
