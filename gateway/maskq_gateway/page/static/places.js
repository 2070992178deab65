// Where queued jobs stand: asked for now and then, as no event tells it.

const POLL_MS = 3000;
const MOST = 4; // requests each time, which count against the key's rate

export class Places {
  // opened(): the id of the job that is looked at, or "".
  constructor(jobs, opened) {
    this.jobs = jobs;
    this.opened = opened;
  }

  start(signal) {
    const poll = async () => {
      if (!document.hidden) await this.#ask(signal);
      if (!signal.aborted) timer = setTimeout(poll, POLL_MS);
    };
    let timer = setTimeout(poll, POLL_MS / 3);
    signal.addEventListener("abort", () => clearTimeout(timer));
  }

  // The job that is looked at first, then those that were submitted first.
  async #ask(signal) {
    const queued = this.jobs.shown().filter((job) => job.status === "queued").reverse();
    const opened = this.jobs.find(this.opened());
    if (opened?.status === "queued") queued.unshift(opened);
    const ids = [...new Set(queued.map((job) => job.id))].slice(0, MOST);
    await Promise.all(ids.map((id) => this.jobs.fetch(id, { signal }).catch(() => {})));
  }
}
