// The jobs of the list: what the API listed, changed by events, and what is being sent from here.

import { get } from "./api.js";
import { about, nameOf } from "./format.js";

const PAGE = 50;
const MOST = 1000; // jobs in memory, beyond which the oldest are dropped
const MOST_EARLY = 500; // events of jobs that are not known yet
const REFRESH_MS = 2000; // between two requests for jobs that only events told of

export class Jobs extends EventTarget {
  #known = new Map(); // by id
  #unsent = new Map(); // being sent, or refused
  #cursor = "";
  #loads = 0;
  #refreshing = null;
  #early = new Map(); // by id, the latest event of jobs that are not known yet
  opened = ""; // the job that is looked at: it stays known whatever the filter
  filter = { status: "", batch: "", text: "" };

  // Replace what is known with the newest page for this filter.
  async load() {
    const number = ++this.#loads;
    const page = await this.#page("");
    if (number !== this.#loads) return;
    const kept = this.#known.get(this.opened);
    this.#known = new Map(page.jobs.map((job) => [job.id, job]));
    if (kept && !this.#known.has(kept.id)) this.#known.set(kept.id, kept);
    this.#cursor = page.cursor;
    this.#changed();
  }

  // Add the next page. Pages may be empty and still be followed by others.
  async more() {
    const number = this.#loads;
    const page = await this.#page(this.#cursor);
    if (number !== this.#loads) return;
    for (const job of page.jobs) this.#known.set(job.id, job);
    this.#cursor = page.cursor;
    this.#changed();
  }

  get hasMore() {
    return this.#cursor !== "";
  }

  // Those that the filter passes, newest first.
  shown() {
    const { status, batch } = this.filter;
    const text = this.filter.text.trim().toLowerCase();
    const passes = (job) =>
      (!status || job.status === status) &&
      (!batch || job.batch_id === batch) &&
      (!text || job.id.startsWith(text) || nameOf(job).toLowerCase().includes(text));
    const all = [...this.#unsent.values(), ...this.#known.values()].filter(passes);
    return all.sort((a, b) => b.created_ms - a.created_ms || (a.id < b.id ? 1 : -1));
  }

  all() {
    return [...this.#known.values()];
  }

  find(id) {
    return this.#known.get(id) ?? this.#unsent.get(id) ?? null;
  }

  // A record of the API, newer than what is known.
  put(record) {
    const known = this.#known.get(record.id);
    if (known && about(known.status).isEnded && !about(record.status).isEnded) return;
    this.#known.set(record.id, { ...known, ...record });
    const event = this.#early.get(record.id); // overtook the answer that has this record
    this.#early.delete(record.id);
    if (event) this.take(event);
    this.#trim();
    this.#changed(record.id);
  }

  // Ask the API for one job and keep it. Raises ApiError.
  async fetch(id, options) {
    const record = await get(`v1/jobs/${encodeURIComponent(id)}`, options);
    this.put(record);
    return this.find(id);
  }

  remove(id) {
    this.#known.delete(id);
    this.#unsent.delete(id);
    this.#changed(id);
  }

  // A job that has no id of the API's yet: {id, status: uploading | unsent, file, created_ms, error}.
  putUnsent(job) {
    this.#unsent.set(job.id, job);
    this.#changed(job.id);
  }

  // What an event tells. Jobs that are not known are listed again, at most every two seconds.
  take(event) {
    const { job_id: id, status, attempt, result, error, batch_id } = event.data;
    if (!id) return;
    const known = this.#known.get(id);
    if (!known) {
      this.#early.delete(id);
      this.#early.set(id, event);
      if (this.#early.size > MOST_EARLY) this.#early.delete(this.#early.keys().next().value);
      const { status: wanted, batch } = this.filter;
      if ((!wanted || wanted === status) && (!batch || batch === batch_id)) this.#refresh();
      return;
    }
    if (about(known.status).isEnded || attempt < known.attempt) return;
    const at = Date.parse(event.time);
    const changes = { status, attempt };
    if (status === "running") changes.started_ms = at;
    if (about(status).isEnded) Object.assign(changes, { ended_ms: at, result, error });
    this.#known.set(id, { ...known, ...changes });
    this.#changed(id);
  }

  #refresh() {
    this.#refreshing ??= setTimeout(async () => {
      this.#refreshing = null;
      const number = this.#loads;
      const page = await this.#page("").catch(() => null);
      if (page && number === this.#loads) for (const job of page.jobs) this.put(job);
    }, REFRESH_MS);
  }

  #page(cursor) {
    const { status, batch } = this.filter;
    const query = new URLSearchParams({ limit: PAGE });
    if (status) query.set("status", status);
    if (batch) query.set("batch_id", batch);
    if (cursor) query.set("cursor", cursor);
    return get(`v1/jobs?${query}`);
  }

  #trim() {
    if (this.#known.size <= MOST) return;
    const oldest = this.all().sort((a, b) => a.created_ms - b.created_ms);
    for (const job of oldest.slice(0, this.#known.size - MOST)) this.#known.delete(job.id);
  }

  #changed(id = null) {
    this.dispatchEvent(new CustomEvent("change", { detail: id }));
  }
}
