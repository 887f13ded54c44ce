// The widget DiffExplorer: a diff view on the traits and messages of theta_nb/jupyter/diff_explorer.py.

import { clientOf, stateOf } from "./widget.js";
import { createDiffView } from "./diff_view.js";
import { element } from "./dom.js";
import { floats, inflated } from "./messages.js";

async function render({ model, el }) {
  const state = stateOf(model);
  const client = clientOf(model);
  const waiting = element("div.theta-loading", {}, "loading the diff …");
  el.append(waiting);
  let [view, closed] = [null, false];
  const numbers = () => floats(model.get("_numbers"));

  let index = await inflated(model.get("_index"));
  waiting.remove();
  if (closed) return;
  view = createDiffView(el, { index, numbers: numbers(), state, client });
  const reload = async () => {
    if (!model.get("_index").byteLength) return; // Python closes the widget
    index = await inflated(model.get("_index"));
    if (!closed) view.update(index, numbers());
  };
  model.on("change:_numbers", reload);
  view.measureIfWanted();
  return () => {
    closed = true;
    model.off("change:_numbers", reload);
    view.destroy();
    client.close();
    state.close();
    [view, index] = [null, null]; // JupyterLab keeps what it can undo, and this function with it
  };
}

export default { render };
