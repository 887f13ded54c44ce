// So that an answer is not held back on its way to the page.
//
// A server of notebooks passes on what a kernel says in small pieces: "busy", the answer, "idle". TCP, as servers leave it,
// holds a small piece back until the one before is acknowledged (Nagle), and a browser that has just sent something itself
// puts off acknowledging for 40 ms. Together that is 45 ms for what takes 5. Whatever the browser sends acknowledges at
// once: so while a hand waits for an answer, the first pieces that come are met by an empty message.

const MOST = 2; // for an answer: one frees "busy", one the answer
const PAUSE = 1; // ms in which pieces that come together are met by one message

/**
 * @param {Object} kernel of the page, as JupyterLab has it; without one nothing is done
 * @param {function(): void} send sends an empty message
 * @returns {{expect: function(Promise): Promise, close: function(): void}} `expect` nudges until a promise is settled
 */
export function createNudge(kernel, send) {
  let [left, timer, newest] = [0, 0, null];
  const nudge = () => {
    timer = 0;
    if (!left) return;
    left -= 1;
    send();
  };
  const heard = (_, { direction }) => {
    if (direction === "recv" && left) timer ||= setTimeout(nudge, PAUSE);
  };
  kernel?.anyMessage?.connect(heard);
  return {
    expect(answer) {
      [left, newest] = [MOST, answer];
      const over = () => newest === answer && ([left, newest] = [0, null]);
      answer.then(over, over);
      return answer;
    },
    close() {
      left = 0;
      clearTimeout(timer);
      kernel?.anyMessage?.disconnect(heard);
    },
  };
}
