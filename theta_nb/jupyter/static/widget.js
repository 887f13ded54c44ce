// What widgets have in common: an anywidget model as the state and the client that views are made with.

import { createClient } from "./messages.js";
import { createNudge } from "./nudge.js";
import { watchKernel } from "./kernel.js";

const PAUSE = 60; // ms in which changes of state gather before they go to Python

const watches = new WeakMap(); // one for each view, which gets a model object of its own

function kernelOf(model) {
  if (!watches.has(model)) watches.set(model, watchKernel(model));
  return watches.get(model);
}

/** State that is shared with Python: traits of a widget. */
export function stateOf(model) {
  const kernel = kernelOf(model);
  let timer = 0;
  const save = () => ((timer = 0), kernel.attempt(() => model.save_changes()));
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

/** A client whose messages go through a widget's comm, and that hears when the kernel is gone; `close` ends it. */
export function clientOf(model) {
  const kernel = kernelOf(model);
  const client = createClient((message) => kernel.attempt(() => model.send(message)));
  const heard = (message, buffers) => client.receive(message, buffers);
  const nudge = createNudge(model.widget_manager?.kernel, () => kernel.attempt(() => model.send({})));
  model.on("msg:custom", heard);
  kernel.onLost((reason) => client.lose(reason));
  return {
    ...client,
    ask(channel, what, details, onProgress, urgent = false) {
      const answer = client.ask(channel, what, details, onProgress, urgent);
      return urgent ? nudge.expect(answer) : answer;
    },
    close() {
      nudge.close();
      model.off("msg:custom", heard);
      kernel.close();
      client.close();
    },
  };
}
