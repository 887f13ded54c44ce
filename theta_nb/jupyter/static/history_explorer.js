// The widget HistoryExplorer: a history view on the traits and messages of theta_nb/jupyter/history_explorer.py.

import { clientOf, stateOf } from "./widget.js";
import { createHistoryView } from "./history_view.js";
import { element } from "./dom.js";
import { inflated } from "./messages.js";

async function render({ model, el }) {
  const state = stateOf(model);
  const client = clientOf(model);
  const waiting = element("div.theta-loading", {}, "loading the history …");
  el.append(waiting);
  let view = createHistoryView(el, { index: await inflated(model.get("_index")), state, client });
  waiting.remove();
  return () => {
    view.destroy();
    client.close();
    state.close();
    view = null; // JupyterLab keeps what it can undo, and this function with it
  };
}

export default { render };
