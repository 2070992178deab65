// The list of jobs.

import { by, el } from "./dom.js";
import { about, badge, duration, moment, nameOf, place } from "./format.js";
import { show } from "./thumbnails.js";

export class List {
  #rows = new Map();
  #due = false;

  // onRetry(job): its button was pressed.
  constructor(jobs, onRetry) {
    this.jobs = jobs;
    this.onRetry = onRetry;
    this.selected = "";
    this.root = by("jobs");
    jobs.addEventListener("change", () => this.update());
    this.root.addEventListener("keydown", (event) => this.#move(event));
  }

  select(id) {
    this.selected = id;
    this.update();
    this.#rows.get(id)?.node.scrollIntoView({ block: "nearest" });
  }

  // The link of a job, or of the first one.
  focus(id) {
    const row = this.#rows.get(id) ?? [...this.#rows.values()][0];
    (row?.link ?? this.root).focus();
  }

  update() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      this.#draw();
    });
  }

  #draw() {
    const shown = this.jobs.shown();
    const rows = new Map();
    let before = null;
    for (const job of shown) {
      const row = this.#rows.get(job.id) ?? this.#made(job);
      this.#fill(row, job);
      rows.set(job.id, row);
      const place = before ? before.nextSibling : this.root.firstChild;
      if (place !== row.node) this.root.insertBefore(row.node, place);
      before = row.node;
    }
    while (before ? before.nextSibling : this.root.firstChild)
      (before ? before.nextSibling : this.root.firstChild).remove();
    this.#rows = rows;
    by("more").hidden = !this.jobs.hasMore;
    const { status, batch, text } = this.jobs.filter;
    by("nothing").hidden = shown.length > 0;
    by("nothing").textContent = status || batch || text ? "No such job." : "No jobs yet.";
  }

  #made(job) {
    const canvas = el("canvas", { class: "thumb", width: 128, height: 96, "aria-hidden": "true" });
    const [name, meta] = [el("bdi", { class: "name" }), el("span", { class: "meta" })];
    const link = el(
      "a",
      { class: "open", href: `#/jobs/${job.id}` },
      canvas,
      el("span", { class: "text" }, name, meta),
    );
    const reason = el("p", { class: "reason" });
    const retry = el("button", {
      type: "button",
      class: "quiet retry",
      on: { click: () => this.onRetry(this.jobs.find(job.id)) },
    });
    const node = el("li", { class: "row" }, link, reason, retry);
    return { node, link, canvas, name, meta, reason, retry, said: "" };
  }

  #fill(row, job) {
    const isSelected = job.id === this.selected;
    if (isSelected) row.link.setAttribute("aria-current", "true");
    else row.link.removeAttribute("aria-current");
    const said = `${job.status} ${job.attempt} ${job.started_ms} ${job.ended_ms} ${job.request ? 1 : 0} ${place(job)}`;
    if (said === row.said) return;
    row.said = said;
    const { kind, retry } = about(job.status);
    row.node.dataset.status = job.status;
    row.node.dataset.kind = kind;
    row.name.textContent = nameOf(job);
    row.name.title = nameOf(job);
    const stands = place(job);
    row.meta.replaceChildren(
      badge(job.status),
      el("span", {}, times(job)),
      ...(stands ? [el("span", { class: "place" }, stands)] : []),
    );
    const failed = retry && job.error;
    row.reason.hidden = !failed;
    row.reason.replaceChildren(...(failed ? [el("code", {}, job.error.code), " ", job.error.message] : []));
    row.retry.hidden = !retry;
    row.retry.textContent = retry ?? "";
    row.retry.setAttribute("aria-label", `${row.retry.textContent}: ${nameOf(job)}`);
    show(row.canvas, job);
  }

  #move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    const links = [...this.root.querySelectorAll("a.open")];
    const to = links[links.indexOf(document.activeElement) + step];
    if (!to) return;
    event.preventDefault();
    to.focus();
    location.replace(to.hash); // the job at once, without an entry in the history for each step
  }
}

function times(job) {
  if (!job.request) return "";
  const took = about(job.status).isEnded ? duration(job.ended_ms - (job.started_ms ?? job.ended_ms)) : "";
  const ran = job.started_ms && took ? ` · ${took}` : "";
  return `${moment(job.created_ms)}${ran}`;
}
