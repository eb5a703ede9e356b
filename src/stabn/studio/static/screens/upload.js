// A video from this machine: sent to the studio, shown, and removed when the studio ends.

import { address } from "../lib/api.js";
import { element, openDialog } from "../lib/dom.js";
import { clipAddress } from "../lib/wording.js";

const MIB = 2 ** 20;
const KEPT = "stabn-uploads";

/** Uploads of this tab that can be opened again. @returns {{id: string, name: string}[]} */
export function uploads() {
  try {
    const list = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
    return Array.isArray(list) ? list.filter(({ id, name }) => typeof id === "string" && typeof name === "string") : [];
  } catch {
    return [];
  }
}

/** @param {string} id of an upload that is gone */
export function forgetUpload(id) {
  keep(uploads().filter((upload) => upload.id !== id));
}

function keep(list) {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(list));
  } catch {
    // storage is forbidden: it can be opened now, but not again later
  }
}

/**
 * The button that opens a video, and dropping one anywhere on the page.
 * @param {import("../main.js").Context} context
 * @returns {{button: HTMLElement, close: () => void}}
 */
export function uploading(context) {
  const limit = context.session.max_upload_mb;
  const input = element("input", { id: "upload-file", type: "file", accept: "video/*,.mkv,.webm,.avi,.mov,.mp4", hidden: true, tabindex: -1, "aria-label": "A video file" });
  const zone = element("div", { id: "drop-zone", class: "drop-zone", hidden: true }, element("p", {}, element("strong", {}, "Drop the video here"), element("span", {}, `to see what the network predicts; up to ${limit} MB`)));
  let dialog = null;
  const take = (file) => {
    if (file) dialog = send(context, file, limit);
  };
  input.addEventListener("change", () => {
    take(input.files[0]);
    input.value = "";
  });
  const button = element("div", { class: "upload" },
    element("button", { id: "upload", class: "button", type: "button", "aria-describedby": "upload-note", onclick: () => input.click() }, "Open a video…"),
    element("span", { id: "upload-note", class: "muted small" }, `or drop one here, up to ${limit} MB`), input);
  const stop = dropping(zone, take);
  document.body.append(zone);
  return { button, close() {
    stop();
    dialog?.close();
  } };
}

/** Handle files dragged over the window; `depth` counts, because a child is entered before its parent is left. */
function dropping(zone, take) {
  let depth = 0;
  const leaving = new AbortController();
  const on = (name, work) => document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files") || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    work(event);
    zone.hidden = depth <= 0;
  }, { signal: leaving.signal });
  on("dragenter", () => (depth += 1));
  on("dragleave", () => (depth -= 1));
  on("dragover", (event) => (event.dataTransfer.dropEffect = "copy"));
  on("drop", (event) => {
    depth = 0;
    take(event.dataTransfer.files[0]);
  });
  return () => {
    leaving.abort();
    zone.remove();
  };
}

/** Upload a file. @returns {HTMLDialogElement} closing it cancels the upload */
function send(context, file, limit) {
  const bar = element("progress", { id: "upload-progress", max: 100, value: 0, "aria-label": "Sent" });
  const statusLine = element("p", { id: "upload-state", role: "status" }, "Sending…");
  const promise = element("p", { class: "muted" }, "It is read only: nothing that you paint on it is kept. The studio removes the video when it ends.");
  const sending = new XMLHttpRequest(); // fetch does not report upload progress
  const stop = element("button", { id: "upload-stop", class: "button", type: "button" }, "Cancel");
  const dialog = openDialog("Opening your video", (close) => {
    stop.addEventListener("click", close);
    return [element("p", { class: "ellipsis upload-name", title: file.name }, file.name), bar, statusLine, promise,
      element("div", { class: "row" }, element("span", { class: "spacer" }), stop)];
  });
  dialog.addEventListener("close", () => sending.abort());
  const refuse = (text) => {
    bar.hidden = promise.hidden = true;
    dialog.querySelector("#dialog-title").textContent = "The studio refused this file";
    statusLine.className = "wrong";
    statusLine.setAttribute("role", "alert");
    statusLine.textContent = text;
    stop.textContent = "Close";
  };
  if (file.size > limit * MIB) {
    refuse(`This file has ${Math.ceil(file.size / MIB).toLocaleString("en")} MB and the studio accepts up to ${limit} MB; choose a shorter or smaller video.`);
    return dialog;
  }
  sending.upload.addEventListener("progress", ({ loaded, total }) => {
    bar.value = total ? (100 * loaded) / total : 0;
    statusLine.textContent = loaded < total ? `Sent ${Math.round((100 * loaded) / total)} %` : "Checking whether it is a video…";
  });
  sending.addEventListener("error", () => refuse("The studio did not receive the video; is it still running?"));
  sending.addEventListener("load", () => {
    const answer = parsed(sending.responseText);
    if (sending.status >= 300 || typeof answer.id !== "string") return refuse(answer.error ?? `The studio answered ${sending.status}.`);
    keep([...uploads().filter(({ id }) => id !== answer.id), { id: answer.id, name: file.name }].slice(-8));
    dialog.close();
    context.notify("Your video is open. It is removed when the studio ends.");
    return context.go(clipAddress(answer.id));
  });
  sending.open("POST", address("uploads", { name: file.name }));
  sending.send(file);
  return dialog;
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
