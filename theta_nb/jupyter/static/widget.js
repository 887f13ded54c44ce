// What both widgets have in common: an anywidget model as the state and the client that views are made with.

import { createClient } from "./messages.js";

const PAUSE = 60; // ms in which changes of state gather before they go to Python

/** State that is shared with Python: traits of a widget. */
export function stateOf(model) {
  let timer = 0;
  const save = () => ((timer = 0), model.save_changes());
  return {
    get: (name) => model.get(name),
    set(name, value) {
      if (JSON.stringify(model.get(name)) === JSON.stringify(value)) return;
      model.set(name, value);
      timer ||= setTimeout(save, PAUSE);
    },
    on(name, listener) {
      const heard = () => listener(model.get(name));
      model.on(`change:${name}`, heard);
      return () => model.off(`change:${name}`, heard);
    },
    close: () => timer && (clearTimeout(timer), save()),
  };
}

/** A client whose messages go through a widget's comm; returns it with a function that ends it. */
export function clientOf(model) {
  const client = createClient((message) => model.send(message));
  const heard = (message, buffers) => client.receive(message, buffers);
  model.on("msg:custom", heard);
  return {
    ...client,
    close() {
      model.off("msg:custom", heard);
      client.close();
    },
  };
}
