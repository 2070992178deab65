// One job: its picture while it waits, image and mask when it is done, the reason when it failed.

import { output, post } from "./api.js";
import { announce, by, copy, el } from "./dom.js";
import { downloads } from "./downloads.js";
import { facts } from "./facts.js";
import { about, badge, duration, nameOf, place } from "./format.js";
import { MOST, classesOf, colourOf, entries } from "./legend.js";
import * as photos from "./photos.js";
import { loaded, still } from "./pictures.js";
import { pixels } from "./pixels.js";
import { NONE, Stage } from "./stage.js";

const LONGEST_SIDE = 1600; // px of what is drawn; what is pointed at is read at full size

export class Viewer {
  #opened = null; // {id, status, abort}

  constructor(jobs, { onRetry, onProblem }) {
    this.jobs = jobs;
    this.onRetry = onRetry;
    this.onProblem = onProblem;
    this.root = by("view");
    jobs.addEventListener("change", ({ detail: id }) => {
      if (this.#opened && (id === null || id === this.#opened.id)) this.#update();
    });
  }

  // Nothing is selected: how to begin.
  welcome() {
    this.#leave();
    this.root.replaceChildren(copy("welcome"));
  }

  // Show a job, as it is known here or as the API has it.
  async open(id) {
    this.#leave();
    const abort = new AbortController();
    this.#opened = { id, said: "", abort };
    this.jobs.opened = id;
    const isLocal = id.startsWith("local-");
    if (this.jobs.find(id)) this.#update();
    else this.root.replaceChildren(el("p", { class: "wait" }, "Looking for the job"));
    if (isLocal) {
      if (!this.jobs.find(id)) this.#missing(id, "This image was not sent from this tab.");
      return;
    }
    try {
      await this.jobs.fetch(id, { signal: abort.signal });
    } catch (error) {
      if (!abort.signal.aborted) this.#missing(id, error.message);
    }
  }

  #leave() {
    this.#opened?.abort.abort();
    this.#opened = null;
    this.jobs.opened = "";
  }

  #missing(id, reason) {
    if (this.jobs.find(id)?.request) return this.onProblem(reason);
    this.root.replaceChildren(
      el(
        "div",
        { class: "ended" },
        el("h2", {}, "There is nothing to show"),
        el("p", { class: "problem" }, reason),
        el("p", {}, el("a", { href: "#/" }, "Back to all jobs")),
      ),
    );
  }

  #update() {
    const job = this.jobs.find(this.#opened.id);
    if (!job) return;
    // By itself, so that nothing that has the focus is replaced.
    const stands = this.root.querySelector(".wait .place");
    if (stands) stands.textContent = place(job);
    const said = `${job.status} ${job.attempt} ${job.request ? 1 : 0} ${job.result ? 1 : 0}`;
    if (said === this.#opened.said) return;
    this.#opened.said = said;
    const body = el("div", { class: "body" });
    this.root.replaceChildren(this.#head(job), body);
    if (job.result) this.#show(job, body);
    else if (about(job.status).isEnded || about(job.status).retry) body.append(this.#failure(job));
    else body.append(this.#waiting(job));
  }

  #head(job) {
    const { result } = job;
    const parts = [
      result && `${result.width} × ${result.height} px`,
      job.model,
      job.started_ms && about(job.status).isEnded && duration(job.ended_ms - job.started_ms),
      !job.id.startsWith("local-") && `job ${job.id}`,
    ];
    const actions = el("div", { class: "actions" });
    if (about(job.status).mayCancel)
      actions.append(this.#button("Cancel", () => this.#cancel(job)));
    return el(
      "header",
      { class: "head" },
      el("a", { class: "back", href: "#/" }, "All jobs"),
      el("h2", { tabindex: "-1" }, el("bdi", {}, nameOf(job))),
      el(
        "p",
        { class: "subtitle" },
        badge(job.status),
        ...parts.filter(Boolean).map((part) => el("bdi", {}, part)),
      ),
      actions,
    );
  }

  #button(text, pressed) {
    return el(
      "button",
      {
        type: "button",
        class: "quiet",
        on: {
          click: async (event) => {
            const button = event.currentTarget;
            button.disabled = true;
            try {
              await pressed();
            } catch (error) {
              this.onProblem(error.message);
            } finally {
              button.disabled = false;
            }
          },
        },
      },
      text,
    );
  }

  async #cancel(job) {
    this.jobs.put(await post(`v1/jobs/${job.id}/cancel`));
  }

  #failure(job) {
    const { error } = job;
    const { text, retry } = about(job.status);
    const picture = photos.urlOf(job.id);
    return el(
      "div",
      { class: "ended" },
      el("h3", {}, text),
      error && el("p", { class: "problem", role: "alert" }, el("code", {}, error.code), " ", error.message),
      retry && this.#button(retry, () => this.onRetry(job)),
      picture && still(picture),
    );
  }

  #waiting(job) {
    const picture = photos.urlOf(job.id);
    const more = job.error ? ` (attempt ${job.attempt}: ${job.error.message})` : "";
    return el(
      "div",
      { class: "pending" },
      el("p", { class: "wait" }, about(job.status).text + more, el("span", { class: "place" }, place(job))),
      picture && still(picture),
    );
  }

  async #show(job, body) {
    const { signal } = this.#opened.abort;
    const wait = el("p", { class: "wait" }, "Fetching the mask");
    const picture = photos.urlOf(job.id);
    body.append(el("div", { class: "pending" }, wait, picture && still(picture)));
    const { outputs, labels, stats } = job.result;
    try {
      const fetched = (name) => (outputs[name] ? output(job.id, name, { signal }) : null);
      const [mask, confidence, photo] = await Promise.all([
        fetched("mask")?.then((blob) => pixels(blob, LONGEST_SIDE)) ?? null,
        fetched("confidence")
          ?.then((blob) => pixels(blob, LONGEST_SIDE))
          .catch((error) => {
            if (signal.aborted) throw error;
            return null;
          }) ?? null,
        this.#background(job, signal),
      ]);
      if (signal.aborted) return;
      if (!mask) {
        const said = "This job was asked for no mask.";
        const found = stats.map((one) => ({ ...one, colour: null }));
        body.replaceChildren(
          el(
            "div",
            { class: "split" },
            el("div", {}, el("p", { class: "notice", role: "note" }, said), photo && still(photo.url)),
            this.#aside(found, el("ul", { class: "legend" }, ...entries(found, { isButton: false })), job),
          ),
        );
        return;
      }
      if (mask.width !== job.result.width || mask.height !== job.result.height)
        throw new Error(
          `the mask is ${mask.width} × ${mask.height} px, the record says ${job.result.width} × ${job.result.height}`,
        );
      this.#picture(job, body, { mask, confidence, photo, labels }, signal);
    } catch (error) {
      if (signal.aborted) return;
      body.replaceChildren(
        el(
          "div",
          { class: "ended" },
          el("p", { class: "problem", role: "alert" }, error.message),
          this.#button("Try again", () => {
            body.replaceChildren();
            return this.#show(job, body);
          }),
        ),
      );
    }
  }

  // What lies under the mask: the image, else the overlay; null: neither can be shown.
  async #background(job, signal) {
    const { width, height } = job.result;
    const fits = (image) => Math.abs(image.naturalWidth / image.naturalHeight / (width / height) - 1) < 0.01;
    const own = photos.urlOf(job.id);
    if (own) {
      const image = await loaded(own);
      if (image && fits(image)) return { image, url: own, kind: "Image" };
    }
    if (!job.result.outputs.overlay || job.request?.overlay_legend) return null;
    try {
      const url = URL.createObjectURL(await output(job.id, "overlay", { signal }));
      signal.addEventListener("abort", () => URL.revokeObjectURL(url));
      const image = await loaded(url);
      return image && fits(image) ? { image, url, kind: "Overlay" } : null;
    } catch (error) {
      if (signal.aborted) throw error;
      return null;
    }
  }

  #picture(job, body, { mask, confidence, photo, labels }, signal) {
    const node = copy("picture");
    const find = (name) => node.querySelector(`.${name}`);
    const classes = classesOf(mask, labels);
    const chosen = classes.slice(0, MOST);
    const slotOf = new Uint8Array(mask.counts.length).fill(NONE);
    chosen.forEach((one, slot) => (slotOf[one.id] = slot));
    const { width, height, ids } = mask.small;
    const slots = new Uint8Array(ids.length);
    for (let i = 0; i < ids.length; i++) slots[i] = slotOf[ids[i]];
    const sure =
      confidence &&
      confidence.width === mask.width &&
      confidence.height === mask.height &&
      confidence.ids instanceof Uint8Array
        ? confidence
        : null;
    const legend = el("ul", { class: "legend" }, ...entries(chosen));
    const stage = find("stage");
    if (photo) {
      photo.image.alt = photo.kind === "Image" ? "The image" : "The image with the mask's colours over it";
      stage.prepend(photo.image);
      find("before").textContent = photo.kind;
    } else stage.classList.add("bare");
    stage.style.setProperty("--width", mask.width);
    stage.style.setProperty("--height", mask.height);
    body.replaceChildren(el("div", { class: "split" }, node, this.#aside(classes, legend, job)));
    if (photo?.kind === "Overlay")
      node.prepend(
        el(
          "p",
          { class: "notice", role: "note" },
          "The image was not sent from this tab. The overlay stands for it.",
        ),
      );
    const elements = {
      stage,
      canvas: find("mask"),
      divider: find("divider"),
      readout: find("readout"),
      opacity: find("opacity"),
      legend,
      clear: find("clear"),
      hint: find("hint"),
      photo: photo?.image ?? null,
    };
    if (photo?.kind === "Overlay") elements.opacity.value = 100;
    const pick = (x, y) => {
      const at = Math.floor(y * mask.height) * mask.width + Math.floor(x * mask.width);
      const id = mask.ids[at];
      const isClass = labels[id] !== undefined;
      return {
        slot: slotOf[id],
        label: isClass ? labels[id] : job.request?.classes ? "not asked for" : `no class (${id})`,
        colour: isClass ? colourOf(id, mask.palette) : null,
        sure: sure ? sure.ids[at] : null,
      };
    };
    const made = new Stage(
      elements,
      { width, height, slots, classes: chosen, confidence: sure && sure.small.ids },
      { pick, signal },
    );
    if (sure) this.#switch(node, made, find);
    stage.dataset.ready = "yes";
    announce(`${nameOf(job)}: ${classes.length === 1 ? "1 class" : `${classes.length} classes`}`);
  }

  #aside(classes, legend, job) {
    return el(
      "aside",
      {},
      el("h3", {}, "Classes ", el("span", { class: "count" }, String(classes.length))),
      legend,
      downloads(job, (text, pressed) => this.#button(text, pressed)),
      el("details", {}, el("summary", {}, "About this result"), el("dl", {}, ...facts(job))),
    );
  }

  #switch(node, stage, find) {
    find("switch").hidden = false;
    for (const button of node.querySelectorAll("[data-mode]"))
      button.addEventListener("click", () => {
        for (const each of node.querySelectorAll("[data-mode]"))
          each.setAttribute("aria-pressed", String(each === button));
        find("scale").hidden = button.dataset.mode !== "confidence";
        find("after").textContent = button.dataset.mode === "confidence" ? "Confidence" : "Mask";
        stage.show(button.dataset.mode);
      });
  }
}
