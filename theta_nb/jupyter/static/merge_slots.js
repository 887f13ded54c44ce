// The panels below a merge view; the contract is in merge_panels.js.

import { element } from "./dom.js";

/**
 * @param {HTMLElement} root where to draw
 * @param {Array<[string, string, function]>} panels name, heading, create
 * @param {{client, choose, restore, select, notice}} view what panels can do
 */
export function createSlots(root, panels, view) {
  const made = panels.map(([name, heading, create]) => {
    const body = element("div.theta-slot-body");
    root.append(element("section.theta-slot", { "aria-label": heading, "data-panel": name }, element("h4", {}, heading), body));
    const actions = {
      ask: (what, details = {}, onProgress = null) => view.client.ask(`${name}.${what}`, `${name}.${what}`, details, onProgress),
      cancel: (what) => view.client.cancel(`${name}.${what}`),
      choose: view.choose, restore: view.restore, select: view.select, notice: view.notice,
    };
    return { name, panel: create(body, actions), body };
  });
  root.hidden = !made.length;
  return {
    update({ panels: states, ...shared }) {
      for (const { name, panel } of made) panel.update({ ...shared, panel: states[name] ?? {} });
    },
    destroy() {
      for (const { panel } of made) panel.destroy();
      root.replaceChildren();
    },
  };
}
