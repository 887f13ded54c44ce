// Keeping a merge: message, branch, dry run, commit; and saving the session.
//
// Data contract: see merge_panels.js; `panel` is
//   looked        whether the repository was looked at; nowhere: why the result cannot be kept, or ""
//   path, branch, branches, message, problem, in_conflict   how things stand there
//   committed     [{commit, subject, parents, branch, own}] of this session; own: on a branch of its own
//   reopenable    {when, tries, short} of a session that was left, or null
//   saved         where the session was saved last; tries: how many there are
// asks: look {}, suggest {} -> {message}, rehearse {branch} -> {tensors, changed, nbytes, files, note},
//   commit {branch, message} -> one of `committed`, save {path} -> {path}, reopen {}

import { element, fill } from "./dom.js";
import { count, size } from "./numbers.js";
import { GONE, attempt, createBusy, createFailure, field, typing, workButton } from "./panel_parts.js";

const PAUSE = 300; // ms until a message is suggested anew
const NEW = "\n"; // no branch is called so

/** @param {HTMLElement} root where to draw; @param {Object} actions of merge_panels.js */
export function createKeepingPanel(root, actions) {
  let [state, panel, timer, own, busyWith, asked, revision] = [null, {}, 0, false, "", false, -1];
  const again = element("div.theta-boxed", { hidden: true, role: "status" });
  const message = element("textarea.theta-message", { rows: 5, "aria-label": "commit message", spellcheck: "true", oninput: () => ((own = true), refresh()) });
  const suggest = element("button.theta-button.theta-small", { type: "button", title: "the suggested message instead of yours", onclick: () => ((own = false), suggestSoon(0)) }, "suggest again");
  const target = element("select.theta-select", { "aria-label": "branch", onchange: () => (fill(found), refresh(), target.value === NEW && name.focus()) });
  const name = element("input.theta-input.theta-grow", { type: "text", placeholder: "name of a new branch", "aria-label": "name of a new branch", spellcheck: "false", oninput: () => refresh() });
  const rehearse = workButton("dry run", "compute everything and keep nothing", () => work("rehearse"));
  const commit = workButton("commit", "", () => work("commit"), ".theta-primary");
  const busy = createBusy(null);
  const failure = createFailure();
  const why = element("div.theta-hintline", { role: "status" });
  const found = element("div", { "aria-live": "polite" });
  const file = element("input.theta-input.theta-grow", { type: "text", value: "merge-session.json", "aria-label": "file for the session", spellcheck: "false" });
  const save = workButton("save session", "choices, steps back, tries and notes, to go on another day", saveIt);
  const savedAt = element("div.theta-hintline");
  const form = element("div.theta-keep", {}, message,
    element("div.theta-minibar", {}, field("on", target, "the branch that moves"), name, element("span.theta-spring"), suggest, rehearse, commit));
  typing(root).append(again, form, busy.element, failure.element, why, found,
    element("div.theta-minibar.theta-saving", {}, file, save), savedAt);

  const branch = () => (target.value === NEW ? name.value.trim() : "");

  async function work(what) {
    busyWith = what;
    failure(null);
    fill(found);
    const said = what === "commit" ? "merging, and storing what is new …" : "merging, to see what would come …";
    busy(said);
    refresh();
    const details = what === "commit" ? { branch: branch(), message: message.value } : { branch: branch() };
    const answer = await attempt(() => actions.ask(what, details, (done, total) => busyWith === what && busy(said, done, total)), failure);
    busyWith = "";
    busy(null);
    if (answer && what === "rehearse") fill(found, rehearsed(answer));
    if (answer && what === "commit") own = false;
    refresh();
  }

  function rehearsed({ tensors, changed, nbytes, files, note }) {
    const shown = files.slice(0, 5).join(", ") + (files.length > 5 ? ` and ${files.length - 5} more` : "");
    const lines = [`${changed.toLocaleString("en-US")} of ${count(tensors, "tensor")} would differ from ours; the checkpoint has ${size(nbytes)}.`,
      files.length ? `git merges ${count(files.length, "other file")}: ${shown}.` : "No other file is merged.", note ? `Mind: ${note}.` : ""];
    return element("div.theta-boxed", {}, ...lines.filter(Boolean).map((line) => element("div", {}, line)), element("div.theta-dim", {}, "Nothing was kept."));
  }

  async function saveIt() {
    failure(null);
    const answer = await attempt(() => actions.ask("save", { path: file.value }), failure);
    if (answer) savedAt.textContent = `Saved to ${answer.path}. Reopen it with repo.merge(…, reopen="${answer.path.split("/").at(-1)}").`;
  }

  function suggestSoon(pause = PAUSE) {
    clearTimeout(timer);
    if (own || !state?.alive || !panel.looked) return;
    timer = setTimeout(async () => {
      const answer = await attempt(() => actions.ask("suggest"), () => null);
      if (answer && !own) message.value = answer.message;
      refresh();
    }, pause);
  }

  /** Why nothing can be committed now, in a sentence; "" if it can. */
  function hindrance() {
    if (!state.alive) return GONE;
    if (panel.nowhere) return panel.nowhere.charAt(0).toUpperCase() + panel.nowhere.slice(1);
    if (!panel.looked) return "Looking at the repository …";
    const onCurrent = target.value !== NEW;
    const done = (panel.committed ?? []).findLast((one) => !one.own);
    if (state.chosen.open) return `${count(state.chosen.open, "parameter")} ${state.chosen.open === 1 ? "waits" : "wait"} for a choice: pick a method, or a side.`;
    if (onCurrent && done) return `This merge is committed on ${done.branch || "the current branch"}.${panel.in_conflict ? "" : " Another result of it can go to a new branch."}`;
    if (onCurrent && panel.problem) return `${panel.problem}${panel.in_conflict ? "" : " Or commit to a new branch, which leaves the work tree alone."}`;
    if (!onCurrent && !name.value.trim()) return "Name the new branch.";
    if (!onCurrent && panel.branches.includes(name.value.trim())) return `There is a branch ${name.value.trim()} already.`;
    if (!message.value.trim()) return "Say in a line what was merged.";
    return "";
  }

  function refresh() {
    if (!state) return;
    const reason = hindrance();
    const off = Boolean(reason) || busyWith !== "";
    commit.disabled = rehearse.disabled = off;
    rehearse.hidden = Boolean(panel.nowhere);
    form.hidden = Boolean(panel.nowhere);
    for (const control of [message, target, name, suggest, save, file]) control.disabled = !state.alive || busyWith !== "";
    suggest.hidden = !own;
    why.textContent = busyWith ? "" : reason;
    why.classList.toggle("theta-problem", Boolean(panel.problem) && reason.startsWith(panel.problem));
    drawTarget();
    drawAgain();
    drawCommitted();
  }

  function drawTarget() {
    const current = panel.branch ? `${panel.branch} (current)` : "the current commit (no branch)";
    const options = [["", panel.in_conflict ? `${current}, ending git's merge` : current], ...(panel.in_conflict ? [] : [[NEW, "a new branch"]])];
    if (target.options.length !== options.length || target.options[0].textContent !== options[0][1]) {
      const before = target.value;
      fill(target, ...options.map(([value, label]) => element("option", { value }, label)));
      target.value = options.some(([value]) => value === before) ? before : "";
    }
    name.hidden = target.value !== NEW;
  }

  function drawAgain() {
    const { reopenable } = panel;
    again.hidden = !reopenable || !state.alive;
    if (again.hidden || again.dataset.when === reopenable.when) return;
    again.dataset.when = reopenable.when;
    fill(again, element("span", {}, `You left this merge on ${reopenable.when}: ${reopenable.short}, ${count(reopenable.tries, "try").replace("trys", "tries")}. `),
      workButton("go on with it", "its choices, steps back and tries", () => attempt(() => actions.ask("reopen"), failure)));
  }

  function drawCommitted() {
    if (!panel.committed?.length || busyWith) return;
    const rows = panel.committed.map(({ commit: id, subject, parents, branch: on, own: apart }) => element("li", {},
      element("span.theta-good", { "aria-hidden": "true" }, "✓ "), element("code", { title: id }, id.slice(0, 8)), ` on ${on || "no branch"}${apart ? " (new)" : ""}: `,
      element("b", {}, subject), element("span.theta-dim", {}, ` merges ${parents.map((parent) => parent.slice(0, 8)).join(" and ")}`)));
    if (found.querySelectorAll(".theta-committed li").length !== rows.length) fill(found, element("ul.theta-committed", {}, ...rows));
  }

  return {
    update(next) {
      const [looked, tries] = [panel.looked, panel.tries];
      [state, panel] = [next, next.panel];
      if (!asked && state.alive && !panel.nowhere) (asked = true), attempt(() => actions.ask("look"), failure);
      if (revision !== next.chosen.revision || looked !== panel.looked || tries !== panel.tries) suggestSoon();
      if (revision !== next.chosen.revision) fill(found); // a dry run was of what is chosen no more
      revision = next.chosen.revision;
      refresh();
    },
    destroy() {
      clearTimeout(timer);
      root.replaceChildren();
    },
  };
}
