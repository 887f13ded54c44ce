// What a person sees when Python is gone: one sentence, and no control that would do nothing.

import { element } from "./dom.js";

/**
 * Say it above a view, and disable the controls in it that carry the attribute `data-python`.
 *
 * @param {HTMLElement} frame the view
 * @param {{onLost: function?}} client as of messages.js; one that cannot be lost is fine
 * @param {function(): void} [onLost] what else there is to do
 * @returns {function(): void} ends it
 */
export function heedLoss(frame, client, onLost = () => {}) {
  const off = client.onLost?.((reason) => {
    const sentence = `${reason}, so nothing more can be read. What is drawn stays; run the cell again to go on.`;
    frame.prepend(element("div.theta-lost", { role: "alert" }, sentence));
    frame.dataset.lost = reason;
    for (const control of frame.querySelectorAll("[data-python]")) control.disabled = true;
    onLost(reason);
  });
  return off ?? (() => {});
}

/** Whether the view around an element has lost its kernel. */
export const isLost = (inner) => Boolean(inner.closest("[data-lost]"));
