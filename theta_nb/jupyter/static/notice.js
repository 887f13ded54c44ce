// A line for what is going on: progress, what failed, and one thing that can be done about it.

import { element } from "./dom.js";

/** @returns a function that shows {text | error, share?: 0 to 1, action?: [label, callback]}, or nothing for null */
export function createNotice() {
  const text = element("span");
  const progress = element("progress", { max: 1, "aria-label": "progress" });
  const button = element("button.theta-button", { type: "button", "data-python": true, onclick: () => act?.() });
  const box = element("div.theta-notice", { hidden: true, role: "status" }, progress, text, button);
  let act = null;
  const show = (notice) => {
    box.hidden = !notice;
    if (!notice) return;
    text.className = notice.error ? "theta-problem" : "";
    text.textContent = notice.error ?? notice.text;
    progress.hidden = notice.share === undefined;
    if (notice.share !== undefined) progress.value = notice.share;
    button.hidden = !notice.action;
    [button.textContent, act] = notice.action ?? ["", null];
  };
  show.element = box;
  return show;
}
