// The panels below a merge view, in their order: what is tried, and what is kept.
//
// Contract. A panel is a module `NAME_panel.js` that exports a function
//   createNamePanel(element, actions) -> {update(state), destroy()}
// element   an empty element to draw in; its heading stands above it already
// actions   what a panel can do:
//   ask(what, details, onProgress) -> Promise  a request to its desk in Python (details: texts, whole numbers, and
//                                   `form`: JSON as text); a newer one with the same `what` replaces an older one, whose
//                                   promise is rejected with Superseded (messages.js)
//   cancel(what)                    stop what was asked for
//   choose(edits) -> Promise        change what is chosen, as one step that can be undone; edits as in edits_of()
//   restore(settings) -> Promise    choose everything at once: what `state.chosen.settings` was
//   select(names)                   select parameters
//   notice({text | error, share?, action?} | null)  the line above the view
// state     what it draws, whole, whenever something of it changed:
//   panel      what its desk in Python says (PanelDesk.state()); {} where there is none
//   index      names, methods, labels (merge_index.py)
//   chosen     what is chosen now (MergeDesk.chosen()): {revision, settings, short, choices, yaml, undo, redo, open, measured}
//   selection  names of the selected parameters
//   alive      false when the kernel is gone: nothing that is asked for will be answered
// The name of a panel is that of its desk in PANELS of theta_nb/jupyter/merge_explorer.py.

import { createEvaluationPanel } from "./evaluation_panel.js";
import { createKeepingPanel } from "./keeping_panel.js";
import { createSweepPanel } from "./sweep_panel.js";
import { createTriesPanel } from "./tries_panel.js";

/** [name, heading, create] */
export const PANELS = [
  ["evaluation", "Evaluate", createEvaluationPanel],
  ["sweep", "Sweep", createSweepPanel],
  ["tries", "Tries", createTriesPanel],
  ["keeping", "Keep", createKeepingPanel],
];
