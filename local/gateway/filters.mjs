// Values in a REST address. lite takes 1.10 for 1.1, `null` for no value and `{…}` for an object; PostgREST takes
// each as text and leaves it to the column's type. In quotation marks lite leaves them alone.
const KEPT = new Set(["select", "order", "limit", "offset", "on_conflict", "columns", "apikey"]);
const COMPARED = /^((?:not\.)?(?:eq|neq|gt|gte|lt|lte|cs|cd|ov)\.)(.*)$/s;
const LISTED = /^((?:not\.)?in\.\()(.*)\)$/s;
const WORD = /"[^"\\]*(?:\\.[^"\\]*)*"|[^,]+/g; // of a list
const IN_TREE = /(\.(?:eq|neq|gt|gte|lt|lte)\.)([^,()"{}]+)(?=[,)])/g;
const OPERATOR = /^(?:not\.)?[a-z]+(?:\([^)]*\))?\./;

const quoted = (text) => `"${text.replace(/["\\]/g, "\\$&")}"`;

function exactValue(value, isArgument) {
  const compared = COMPARED.exec(value);
  if (compared) return `${compared[1]}"${compared[2]}"`;
  const listed = LISTED.exec(value);
  if (listed)
    return `${listed[1]}${listed[2].replace(WORD, (word) => (word[0] === '"' ? word : quoted(word)))})`;
  return isArgument && !OPERATOR.test(value) ? `"${value}"` : value;
}

/** The same address for lite. isCall: arguments of a function stand in it, too. */
export function exactFilters(address, isCall) {
  const url = new URL(address);
  const changed = [...url.searchParams].map(([name, value]) => {
    const last = name.split(".").at(-1);
    if (KEPT.has(last)) return [name, value];
    if (last === "or" || last === "and") return [name, value.replace(IN_TREE, '$1"$2"')];
    return [name, exactValue(value, isCall)];
  });
  url.search = new URLSearchParams(changed).toString();
  return url.href;
}
