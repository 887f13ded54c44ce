// Whether the kernel behind a widget is still there.
//
// Jupyter tells a widget little of it: a restart is an event of the model, and a kernel that was shut down or exchanged
// shows only where something is sent. So the signals of the kernel itself are watched too, where the page has them.

const REASONS = {
  restarting: "The kernel was restarted",
  autorestarting: "The kernel stopped and was started anew",
  terminating: "The kernel was shut down",
  dead: "The kernel has stopped",
};
const GONE = "The kernel is gone";

/**
 * Watch the kernel of a widget. Once lost it stays lost: a new kernel knows nothing of this widget.
 *
 * @param {Object} model as anywidget hands it to a view
 * @returns {{attempt, onLost, close}} `attempt(send)` sends something while there is a kernel, and finds out where there
 *   is none; `onLost(listener)` gets what happened: "The kernel was restarted"
 */
export function watchKernel(model) {
  const kernel = model.widget_manager?.kernel;
  const listeners = new Set();
  let lost = "";

  function lose(reason) {
    if (lost) return;
    lost = reason;
    close();
    for (const listener of listeners) listener(reason);
  }
  const changed = (_, status) => REASONS[status] && lose(REASONS[status]);
  const disposed = () => lose(GONE);
  const disconnected = () => setTimeout(() => lose(REASONS.restarting)); // the status, if there is one, says more
  model.on("comm_live_update", disconnected);
  kernel?.statusChanged?.connect(changed);
  kernel?.disposed?.connect(disposed);

  function close() {
    model.off("comm_live_update", disconnected);
    kernel?.statusChanged?.disconnect(changed);
    kernel?.disposed?.disconnect(disposed);
  }
  return {
    attempt(send) {
      if (lost) return;
      try {
        send();
      } catch {
        lose(GONE);
      }
    },
    onLost(listener) {
      listeners.add(listener);
      if (lost) listener(lost);
    },
    close,
  };
}
