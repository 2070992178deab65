// Workers, queue depth and throughput, in the head of the page.

import { get } from "./api.js";
import { by, el } from "./dom.js";
import { about, plural } from "./format.js";

const POLL_MS = 10_000;
const SOONER_MS = 2000; // where events say that something happens
const WINDOW_MS = 60_000;
const BARS = 30;

export class Deployment {
  #ends = []; // when jobs ended, this page's clock
  #timer = null;
  #isSooner = false;

  // Ask for models now and then, as long as somebody looks.
  start(signal) {
    this.signal = signal;
    this.#poll(0);
    const tick = setInterval(() => this.#rate(), SOONER_MS);
    signal.addEventListener("abort", () => {
      clearTimeout(this.#timer);
      clearInterval(tick);
    });
    by("stats").hidden = false;
    this.#rate();
  }

  // Count an event of a job that ended.
  take(event) {
    if (!event.type.startsWith("maskq.job.")) return;
    if (!this.#isSooner) {
      this.#isSooner = true;
      this.#poll(SOONER_MS);
    }
    if (!about(event.data.status).wasRun) return;
    if (Date.now() - Date.parse(event.time) > WINDOW_MS) return; // read after a reconnection
    this.#ends.push(Date.now());
  }

  #poll(after) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(async () => {
      if (!document.hidden) await this.#models().catch(() => {});
      this.#isSooner = false;
      if (!this.signal.aborted) this.#poll(POLL_MS);
    }, after);
  }

  #rate() {
    const now = Date.now();
    this.#ends = this.#ends.filter((at) => now - at < WINDOW_MS);
    by("rate").textContent = String(this.#ends.length);
    by("rate-word").textContent = this.#ends.length === 1 ? "job" : "jobs";
    const bars = new Array(BARS).fill(0);
    for (const at of this.#ends)
      bars[BARS - 1 - Math.min(BARS - 1, Math.floor(((now - at) / WINDOW_MS) * BARS))]++;
    const canvas = by("spark");
    const context = canvas.getContext("2d");
    const most = Math.max(...bars, 1);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = getComputedStyle(canvas).color;
    const step = canvas.width / BARS;
    bars.forEach((count, place) => {
      const height = count ? Math.max(3, (count / most) * canvas.height) : 2;
      context.globalAlpha = count ? 1 : 0.3;
      context.fillRect(place * step, canvas.height - height, step - 1, height);
    });
  }

  async #models() {
    const { models, default: chosen } = await get("v1/models");
    const workers = models.reduce((sum, model) => sum + model.workers.length, 0);
    by("workers").textContent = String(workers);
    by("workers-word").textContent = workers === 1 ? "worker" : "workers";
    by("stats").classList.toggle("none", workers === 0);
    by("queued").textContent = String(models.reduce((sum, model) => sum + model.queued, 0));
    by("models").replaceChildren(...models.map(described));
    if (!models.length) by("models").append(el("li", {}, "No worker has served a model yet."));
    const select = by("model");
    const names = models.map((model) => model.name);
    if (
      names.join() !==
      [...select.options]
        .map((option) => option.value)
        .filter(Boolean)
        .join()
    ) {
      const kept = select.value;
      const any = chosen.name ? [el("option", { value: "" }, `${chosen.name} (default)`)] : [];
      select.replaceChildren(...any, ...names.map((name) => el("option", { value: name }, name)));
      if (names.includes(kept)) select.value = kept;
    }
    by("model-choice").hidden = models.length < 2;
  }
}

function described({ name, workers, queued, default: isDefault }) {
  const devices = workers.map((one) => [one.owner, one.device, one.dtype].filter(Boolean).join(", "));
  return el(
    "li",
    {},
    el("strong", {}, name),
    isDefault ? " (default)" : "",
    el("span", { class: "hint" }, ` ${plural(workers.length, "worker")}, ${queued} queued`),
    el("ul", {}, ...devices.map((text) => el("li", {}, text))),
  );
}
