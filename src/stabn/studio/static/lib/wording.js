// Formats numbers, times and counts the same on all pages. A missing value is an en dash.

/** @param {number|null|undefined} share 0..1 @param {number} [digits] */
export const percent = (share, digits = 0) => (Number.isFinite(share) ? `${(100 * share).toFixed(digits)} %` : "–");

/** A difference in percentage points with its sign. @param {number} share -1..1 */
export function points(share) {
  const value = (100 * share).toFixed(1);
  return value === "0.0" || value === "-0.0" ? "0.0" : `${share > 0 ? "+" : "−"}${value.replace("-", "")}`;
}

/** @param {number} number @param {string} one @param {string} [many] */
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** @param {number|null|undefined} value @param {number} [digits] */
export const decimal = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits).replace("-", "−") : "–");

/** @param {string|null} iso @returns {string} day and time in the browser's locale */
export function when(iso) {
  const time = iso ? new Date(iso) : null;
  if (!time || Number.isNaN(time.getTime())) return "–";
  return time.toLocaleString(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}

/** @param {string} from ISO @param {string} to ISO @returns {string} "12 min", "40 s" or "" */
export function duration(from, to) {
  const seconds = Math.round((new Date(to) - new Date(from)) / 1000);
  if (!(seconds >= 0)) return "";
  if (seconds < 90) return `${seconds} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** What fine-tuning makes of several people's edits of a clip, as a phrase. @param {string} use */
export function usePhrase(use) {
  if (use.startsWith("author:")) return `only the corrections of ${use.slice("author:".length)}`;
  const phrases = { latest: "the latest correction of each clip", mean: "the mean of several people", median: "the median of several people" };
  return phrases[use] ?? use;
}

/** Address of a clip in the editor. @param {string} id */
export const clipAddress = (id) => `#/clip?id=${encodeURIComponent(id)}`;

/** A path as one word of a shell. @param {string} path */
export const shellWord = (path) => (/^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\"'\"'")}'`);
