// The right column: the method, with controls made from its signature, for everything or for what is selected.
//
// Data contract: index.methods (theta_nb/jupyter/merge_methods.py), index.presets, index.labels; `chosen` of MergeDesk.
// It makes edits [{method, parameters, names?}]: onDraft(edits) while a control is moved, onChoose(edits) when it is let go.

import { element, fill } from "./dom.js";
import { count } from "./numbers.js";
import { createControl } from "./control.js";

/** @param {HTMLElement} root where to draw; @param {{index, onDraft, onChoose, onScope}} options */
export function createPicker(root, options) {
  const { index } = options;
  const methods = new Map(index.methods.map((method) => [method.name, method]));
  let [data, chosen, selection, controls, drawn, wide] = [null, {}, [], [], "", false];

  const scope = element("div.theta-scope", { role: "group", "aria-label": "what the method is for" });
  const picked = element("select.theta-select.theta-method", { "aria-label": "merge method", onchange: () => use(picked.value, {}) });
  const preset = element("select.theta-select", { "aria-label": "preset", onchange: usePreset },
    element("option", { value: "" }, "preset …"), ...index.presets.map(({ name }) => element("option", { value: name }, name)));
  const about = element("div.theta-about");
  const fields = element("div.theta-controls");
  const recipe = element("pre.theta-recipe", { tabindex: 0, "aria-label": "what is chosen, as YAML" });
  const copy = element("button.theta-button", { type: "button", title: "copy the whole recipe, with the inputs that it is for", onclick: copyRecipe }, "copy");
  const [head, clear] = [element("span.theta-strong", {}, "Recipe"), element("button.theta-button", { type: "button", title: "as everything else: take what is selected out of the overrides", onclick: asAll }, "as the rest")];
  root.append(scope, element("div.theta-minibar", {}, picked, preset), about, fields,
    element("div.theta-minibar.theta-recipe-head", {}, head, element("span.theta-spring"), copy), recipe);

  const families = [...new Set(index.methods.map(({ family }) => family))];
  picked.append(element("option", { value: "", disabled: true }, "choose a method"), ...families.map((family) => element("optgroup", { label: family },
    ...index.methods.filter((method) => method.family === family).map((method) => element("option", { value: method.name, disabled: Boolean(method.problem), title: method.problem || method.summary }, method.name)))));

  /** What the controls show: the choice for everything, or that of the first selected parameter. */
  function current() {
    if (!selected()) return chosen.settings?.choice ?? null;
    const found = data?.outcome.choices.length ? data.choice(selection[0]) : null;
    if (!found) return null;
    const taken = found.take === null || found.take === undefined ? "" : found.take === -1 ? "original" : found.take === 0 ? "ours" : "theirs";
    return { method: found.method || taken, parameters: plain(found) };
  }

  /** Bound parameters as they would be given: one number where all inputs have the same. */
  function plain(found) {
    const specs = methods.get(found.method)?.parameters ?? [];
    return Object.fromEntries(specs.filter((spec) => found.parameters[spec.name] !== undefined).map((spec) => {
      const value = found.parameters[spec.name];
      if (!spec.per_model || !Array.isArray(value)) return [spec.name, value];
      if (new Set(value).size === 1) return [spec.name, value[0]];
      return [spec.name, Object.fromEntries(found.inputs.map((k, at) => [index.labels[k], value[at]]))];
    }));
  }

  const selected = () => selection.length > 0 && !wide;
  const edit = (method, parameters) => [{ method, parameters, ...(selected() ? { names: selection.map((i) => index.names[i]) } : {}) }];
  const use = (method, parameters) => options.onChoose(edit(method, parameters));
  function asAll() {
    options.onChoose([{ method: null, parameters: {}, names: selection.map((i) => index.names[i]) }]);
  }

  function usePreset() {
    const found = index.presets.find(({ name }) => name === preset.value);
    preset.value = "";
    if (found) use(found.method, found.parameters);
  }

  async function copyRecipe() {
    try {
      await navigator.clipboard.writeText(chosen.yaml ?? "");
      copy.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(recipe); // no clipboard: Ctrl+C does it
      copy.textContent = "selected";
    }
    setTimeout(() => (copy.textContent = "copy"), 1200);
  }

  const values = () => Object.fromEntries(controls.map((control) => [control.name, control.value()]));

  function refresh() {
    refreshScope();
    const now = current();
    const method = methods.get(now?.method.replace(/^lines:/, ""));
    picked.value = method ? method.name : "";
    refreshAbout(method);
    const key = `${method?.name} ${selected()}`;
    if (key === drawn) controls.forEach((control) => control.set(now.parameters[control.name]));
    else {
      drawn = key;
      controls = (method?.parameters ?? []).map((spec) => createControl(spec, index.labels, {
        onDraft: () => options.onDraft(edit(now.method, values())), onChoose: () => use(now.method, values()),
      }));
      fill(fields, ...controls.map((control) => control.element));
      controls.forEach((control) => control.set(now.parameters[control.name]));
    }
    if (recipe.textContent !== chosen.choices) recipe.textContent = chosen.choices ?? "";
    copy.disabled = !chosen.yaml;
  }

  function refreshScope() {
    const choice = (label, pressed, onclick) => element("button.theta-button", { type: "button", "aria-pressed": String(pressed), onclick }, label);
    const overrides = chosen.settings?.overrides.length ?? 0;
    const except = overrides ? `, but for ${count(overrides, "override")}` : "";
    if (!selection.length) return void fill(scope, element("span.theta-dim", {}, `for what both sides changed${except}`));
    fill(scope, choice("everything", wide, () => ((wide = true), (drawn = ""), refresh())),
      choice(`${count(selection.length, "selected")}`.replace(/s$/, ""), !wide, () => ((wide = false), (drawn = ""), refresh())),
      element("span.theta-spring"), clear);
  }

  function refreshAbout(method) {
    if (!method) return void fill(about, element("span.theta-dim", {}, "Parameters that both sides changed wait for a method."));
    const link = method.paper ? element("a", { href: method.paper, target: "_blank", rel: "noopener noreferrer" }, "paper") : null;
    fill(about, element("span", {}, method.summary), " ", link);
  }

  return {
    setData(next, now) {
      [data, chosen] = [next, now];
      refresh();
    },
    setSelection(leaves) {
      if (leaves.length === selection.length && leaves.every((leaf, at) => leaf === selection[at])) return;
      [selection, wide] = [leaves, false];
      refresh();
    },
    setAlive(alive) {
      for (const control of root.querySelectorAll("select, input, button")) control.disabled = !alive;
    },
    destroy: () => fill(root),
  };
}
