// The progress of the batches that jobs of the list are in.

import { get } from "./api.js";
import { by, el } from "./dom.js";
import { about } from "./format.js";

const MOST = 4;
const REFRESH_MS = 2000;

export class Batches {
  #states = new Map(); // by id
  #stale = new Set();
  #timer = null;

  // onChoose(id): the list is to show its jobs alone; "": all jobs.
  constructor(jobs, onChoose) {
    this.jobs = jobs;
    this.onChoose = onChoose;
    jobs.addEventListener("change", ({ detail: id }) => {
      const changed = id === null ? jobs.all() : [jobs.find(id)].filter(Boolean);
      for (const { batch_id: batch } of changed) if (batch && !this.#isOver(batch)) this.#stale.add(batch);
      if (id === null) this.#draw();
      if (this.#stale.size)
        this.#timer ??= setTimeout(() => this.#refresh(), this.#states.size ? REFRESH_MS : 0);
    });
  }

  #isOver(id) {
    const state = this.#states.get(id);
    return state && state.ended >= state.total;
  }

  #ids() {
    const newest = this.jobs
      .all()
      .filter((job) => job.batch_id)
      .sort((a, b) => b.created_ms - a.created_ms);
    return [...new Set(newest.map((job) => job.batch_id))].slice(0, MOST);
  }

  async #refresh() {
    const ids = this.#ids().filter((id) => this.#stale.has(id));
    this.#stale.clear();
    for (const id of ids) {
      const state = await get(`v1/batches/${encodeURIComponent(id)}`).catch(() => null);
      if (state) this.#states.set(id, state);
    }
    this.#timer = null;
    this.#draw();
  }

  #draw() {
    const chosen = this.jobs.filter.batch;
    const shown = this.#ids()
      .map((id) => this.#states.get(id))
      .filter(Boolean);
    by("batches").replaceChildren(...shown.map((state) => this.#drawn(state, chosen === state.id)));
  }

  #drawn({ id, total, ended, counts }, isChosen) {
    const failed = Object.entries(counts).reduce(
      (sum, [status, count]) => sum + (about(status).kind === "good" ? 0 : count),
      0,
    );
    const text = `${ended} of ${total} ended${failed ? `, ${failed} without a mask` : ""}`;
    return el(
      "button",
      {
        type: "button",
        class: "batch",
        "aria-pressed": String(isChosen),
        on: { click: () => this.onChoose(isChosen ? "" : id) },
      },
      el("span", { class: "name" }, "Batch ", el("code", {}, id.slice(-8))),
      el("span", { class: "hint" }, text),
      el("progress", { max: total, value: ended, "aria-label": text }),
    );
  }
}
