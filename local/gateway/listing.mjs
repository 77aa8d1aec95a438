// Storage's list: one level of a folder, its folders first, though storage.objects knows only whole names.

export const asFolder = (prefix) => {
  const path = String(prefix ?? "").replace(/^\/+|\/+$/g, "");
  return path && `${path}/`;
};

const COLUMNS = new Set(["name", "id", "created_at", "updated_at", "last_accessed_at"]);

/** rows: all objects that the caller may see below the folder; asked: the request {prefix, limit, offset, search, sortBy}. */
export function foldersAndFiles(rows, asked) {
  const folder = asFolder(asked.prefix);
  const { limit = 100, offset = 0, search = "", sortBy } = asked;
  const folders = new Set();
  const files = [];
  for (const row of rows) {
    if (!row.name.startsWith(folder)) continue; // `_` and `%` are wildcards to lite's LIKE
    const rest = row.name.slice(folder.length);
    if (!rest.toLowerCase().startsWith(search.toLowerCase())) continue;
    const slash = rest.indexOf("/");
    if (slash >= 0) folders.add(rest.slice(0, slash));
    else files.push({ name: rest, id: row.id, updated_at: row.updated_at, created_at: row.created_at, last_accessed_at: row.last_accessed_at, metadata: row.metadata });
  }
  const column = COLUMNS.has(sortBy?.column) ? sortBy.column : "name";
  const direction = sortBy?.order === "desc" ? -1 : 1;
  const compare = (a, b) => (a === b ? 0 : (a < b ? -1 : 1) * direction);
  files.sort((a, b) => compare(a[column], b[column]));
  const named = [...folders].sort((a, b) => (column === "name" ? compare(a, b) : a < b ? -1 : 1));
  const rowsOfFolders = named.map((name) => ({ name, id: null, updated_at: null, created_at: null, last_accessed_at: null, metadata: null }));
  return [...rowsOfFolders, ...files].slice(offset, offset + limit);
}
