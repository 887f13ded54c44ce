// What anywidget imports for every widget; see loader() in __init__.py.

const loaded = Symbol.for("KEY");

function load(source) {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  return import(url).finally(() => URL.revokeObjectURL(url));
}

async function render(context) {
  globalThis[loaded] ??= load(context.model.get("_module"));
  try {
    const done = await (await globalThis[loaded]).default.render(context);
    document.getElementById(context.model.get("_stand_in"))?.setAttribute("hidden", ""); // the widget is here
    return done;
  } catch (error) {
    delete globalThis[loaded];
    throw error;
  }
}

export default { render };
