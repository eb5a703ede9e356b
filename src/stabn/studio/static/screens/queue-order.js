// The order in which clips are corrected, and the end of it.

import { element } from "../lib/dom.js";

/**
 * Ids of the queue as the person filtered and sorted it on the queue page, else as the server sorts it.
 * @param {import("../main.js").Context} context
 * @param {string} [id] a clip that must be among them, or the server's order counts
 * @returns {Promise<string[]>}
 */
export async function queueIds(context, id) {
  try {
    const ids = JSON.parse(sessionStorage.getItem("stabn-queue") ?? "null");
    const usable = Array.isArray(ids) && ids.length && ids.every((other) => typeof other === "string");
    if (usable && (id === undefined || ids.includes(id))) return ids;
  } catch {
    // storage is forbidden or holds something else: use the server's order
  }
  return (await context.api.get("queue")).clips.map((clip) => clip.id);
}

/** The end of the queue. @param {HTMLElement} root @param {import("../main.js").Context} context */
export async function allDone(root, context) {
  const [ids, { clips }] = await Promise.all([queueIds(context), context.api.get("queue")]);
  const me = context.author();
  const mine = new Set(clips.filter((clip) => clip.edited_by.includes(me)).map((clip) => clip.id));
  const open = ids.filter((id) => !mine.has(id));
  const corrected = `You have corrected ${ids.length - open.length} of these ${ids.length} clips.`;
  root.append(
    element(
      "div",
      { class: "calm", id: "all-done" },
      element("p", { class: "done-mark", "aria-hidden": "true" }, "✓"),
      element("h1", { tabindex: -1 }, open.length ? "That was the last clip of this list" : "All done"),
      element(
        "p",
        { class: "muted" },
        open.length
          ? `${corrected} The others can stay as they are: clips without an edit are trained on as before.`
          : `${corrected} Now let the network learn from it.`,
      ),
      element(
        "div",
        { class: "row" },
        open.length
          ? element(
              "a",
              { id: "first-open", class: "button", href: `#/clip?id=${encodeURIComponent(open[0])}` },
              "To the first without my edit",
            )
          : element("a", { class: "button", href: "#/" }, "Back to the queue"),
        element("a", { id: "to-finetune", class: "button primary", href: "#/finetune" }, "Fine-tune"),
      ),
    ),
  );
}
