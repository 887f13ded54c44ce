// The overlay that lists the keys.

import { element } from "./dom.js";

/**
 * @param {HTMLElement} root the explorer; `?` opens the overlay, Escape closes it
 * @param {Array<[string, string]>} keys what to press, and what it does
 */
export function createHelp(root, title, keys) {
  let before = null;
  const close = element("button.theta-button", { type: "button", onclick: hide }, "Close");
  const list = element("dl.theta-keys");
  for (const [key, meaning] of keys) {
    list.append(element("dt", {}, ...key.split(" / ").flatMap((one, i) => [i ? " " : null, element("kbd", {}, one)])), element("dd", {}, meaning));
  }
  const panel = element("div.theta-help", { role: "dialog", "aria-modal": "true", "aria-label": title, hidden: true },
    element("div.theta-help-inner", {}, element("h3", {}, title), list, close));
  root.append(panel);
  function show() {
    before = document.activeElement;
    panel.hidden = false;
    close.focus();
  }
  function hide() {
    panel.hidden = true;
    before?.focus?.();
  }
  panel.addEventListener("keydown", (event) => {
    if (event.key === "Tab") event.preventDefault(); // there is one thing to focus
    if (event.key === "Escape" || event.key === "?") hide();
    event.stopPropagation();
  });
  panel.addEventListener("click", (event) => event.target === panel && hide());
  return { show, hide, get open() { return !panel.hidden; } };
}
