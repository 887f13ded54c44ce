// What anywidget imports for every widget; see loader() in __init__.py.

const loaded = Symbol.for("KEY");

function load(source) {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  return import(url).finally(() => URL.revokeObjectURL(url));
}

async function render(context) {
  globalThis[loaded] ??= load(context.model.get("_module"));
  try {
    return (await globalThis[loaded]).default.render(context);
  } catch (error) {
    delete globalThis[loaded];
    throw error;
  }
}

export default { render };
