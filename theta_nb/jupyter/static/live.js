// What a slider asks for while it is dragged: one question at a time, and of those that came meanwhile only the newest.
//
// A newer request would replace the one that runs; at sixty movements a second none would ever be answered.

/**
 * @param {function(Object): Promise} ask
 * @param {function(Object): void} show gets the answers, in order
 * @param {function(Error): void} fail
 * @returns {{draft: function(Object): void, settle: function(): void, destroy: function(): void}} `settle` ends a drag:
 *   answers that come later are not shown
 */
export function createLive(ask, show, fail) {
  let [busy, waiting, generation] = [false, null, 0];

  async function send(question) {
    busy = true;
    const mine = generation;
    try {
      const found = await ask(question);
      if (mine === generation) show(found);
    } catch (error) {
      if (mine === generation) fail(error);
    }
    busy = false;
    const next = waiting;
    waiting = null;
    if (next !== null) send(next);
  }
  return {
    draft(question) {
      if (busy) waiting = question;
      else send(question);
    },
    settle() {
      generation += 1;
      waiting = null;
    },
    destroy() {
      this.settle();
    },
  };
}
