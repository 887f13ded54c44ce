// The widget MergeExplorer: a merge view on the traits and messages of theta_nb/jupyter/merge_explorer.py.

import { clientOf, stateOf } from "./widget.js";
import { createMergeView } from "./merge_view.js";
import { element } from "./dom.js";
import { inflated } from "./messages.js";

async function render({ model, el }) {
  const state = stateOf(model);
  const client = clientOf(model);
  const waiting = element("div.theta-loading", {}, "loading the merge …");
  el.append(waiting);
  let [view, closed] = [null, false];
  const index = await inflated(model.get("_index"));
  waiting.remove();
  if (closed) return;
  view = createMergeView(el, { index, state, client });
  return () => {
    closed = true;
    view.destroy();
    client.close();
    state.close();
    view = null; // JupyterLab keeps what it can undo, and this function with it
  };
}

export default { render };
