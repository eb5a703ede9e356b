// Export and import of corrections as files.

import { address } from "../lib/api.js";
import { count } from "../lib/wording.js";

const MAX_BYTES = 64 * 2 ** 20;
const FORMATS = {
  jsonl: ["JSON Lines", ".jsonl", "Everything, one correction per line: what stabn itself reads."],
  csv: ["CSV", ".csv", "One line per frame, for spreadsheets and statistics."],
  "label-studio": ["Label Studio", ".json", "Timeline labels of Label Studio's video tasks, one annotation per person."],
};

/**
 * The section for export and import.
 * @param {import("../main.js").Context} context
 * @param {() => Promise<void>} changed called after corrections came in
 * @returns {HTMLElement}
 */
export function exchange(context, changed) {
  const { element } = context;
  const file = element("input", { id: "import-file", class: "field", type: "file", accept: ".jsonl,.csv,.json,.ndjson,.txt", "aria-label": "File with corrections" });
  const format = element("select", { id: "import-format", class: "field", "aria-label": "Format of the file" }, Object.entries(FORMATS).map(([name, [title, suffix]]) => element("option", { value: name }, `${title} (${suffix})`)));
  const button = element("button", { id: "import", class: "button primary", type: "submit", disabled: true }, "Import");
  const result = element("p", { id: "import-result", role: "status" }, "Either the whole file is imported or none of it, and earlier corrections stay in the history.");
  result.className = "muted";
  const showResult = (text, kind, role) => {
    result.className = kind;
    result.setAttribute("role", role);
    result.textContent = text;
  };
  file.addEventListener("change", () => {
    const chosen = file.files[0];
    button.disabled = !chosen;
    if (chosen) format.value = guessed(chosen.name);
  });
  const form = element("form", { class: "stack", onsubmit: async (event) => {
    event.preventDefault();
    const [chosen] = file.files;
    if (!chosen) return;
    if (chosen.size > MAX_BYTES) {
      showResult(`${chosen.name}: has ${Math.ceil(chosen.size / 2 ** 20)} MB and the studio accepts up to 64 MB; split it.`, "wrong", "alert");
      return;
    }
    button.disabled = true;
    showResult("Reading…", "muted", "status");
    try {
      const { imported, unchanged } = await context.api.post("import", chosen, { format: format.value, name: chosen.name });
      showResult(`${chosen.name}: ${count(imported, "correction")} imported${unchanged ? `, ${unchanged} were already here` : ""}.`, "right", "status");
      await changed();
    } catch (error) {
      showResult(error.message, "wrong", "alert");
    } finally {
      button.disabled = !file.files.length;
    }
  } }, element("div", { class: "row" }, file, format, button), result);
  return element("section", { class: "card exchange", id: "exchange" },
    element("div", { class: "stack" }, element("h2", {}, "Export"),
      element("p", { class: "muted" }, "All current corrections of everybody."),
      element("ul", { class: "exports" }, Object.entries(FORMATS).map(([name, [title, , text]]) => element("li", {},
        element("a", { id: `export-${name}`, class: "button", href: address("export", { format: name }), download: "" }, title), element("span", { class: "muted small" }, text))))),
    element("div", { class: "stack" }, element("h2", {}, "Import"),
      element("p", { class: "muted" }, "Corrections from another studio, a spreadsheet or Label Studio."), form));
}

/** @param {string} name of a file @returns {string} format */
function guessed(name) {
  const lower = name.toLowerCase();
  if (lower.endsWith(".csv")) return "csv";
  return lower.endsWith(".json") ? "label-studio" : "jsonl";
}
