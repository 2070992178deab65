// Images become jobs: dropped, pasted, chosen, or one of the samples.

import { post } from "./api.js";
import { announce, by } from "./dom.js";
import { bytes, plural } from "./format.js";
import * as photos from "./photos.js";

const OUTPUTS = "mask,overlay,stats,confidence";
const AT_ONCE = 3;
const LONGEST_NAME = 200;

let numbered = 0;

// Needs no secure context, as crypto.randomUUID does.
const unique = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(
    "",
  );

export class Uploads {
  #waiting = [];
  #sending = 0;

  // limits: as GET /v1/limits answers. onSent(localId, record): after each accepted image.
  constructor(jobs, limits, onSent) {
    this.jobs = jobs;
    this.limits = limits;
    this.onSent = onSent;
    by("files").accept = Object.entries(limits.image_types).flat(2).join();
  }

  // Send files, a few at once. Gives the local id of the first.
  add(list) {
    const made = [...list].map((file, place) => ({
      id: `local-${++numbered}`,
      status: "uploading",
      file: file.name || "Pasted image",
      created_ms: Date.now() + 60_000 - place, // before what the gateway's clock may call newer
      attempt: 0,
      body: file,
      idempotency: unique(),
    }));
    for (const job of made) {
      photos.keep(job.id, job.body);
      this.#queue(job);
    }
    if (made.length) announce(`Sending ${plural(made.length, "image")}`);
    return made[0]?.id ?? null;
  }

  // Once more; the idempotency key makes it the same job if the first request had arrived.
  again(job) {
    this.#queue({ ...job, status: "uploading", error: null });
  }

  #queue(job) {
    this.jobs.putUnsent(job);
    this.#waiting.push(job);
    this.#next();
  }

  #next() {
    while (this.#sending < AT_ONCE && this.#waiting.length) {
      this.#sending++;
      this.#send(this.#waiting.shift()).finally(() => {
        this.#sending--;
        this.#next();
      });
    }
  }

  async #send(job) {
    try {
      const record = await this.#post(job);
      photos.keep(record.id, job.body);
      this.jobs.remove(job.id);
      this.jobs.put(record);
      this.onSent(job.id, record);
    } catch (error) {
      const code = error.code || "not_sent";
      this.jobs.putUnsent({ ...job, status: "unsent", error: { code, message: error.message } });
      announce(`${job.file} was not sent: ${error.message}`);
    }
  }

  #post(job) {
    const most = this.limits.max_upload_bytes;
    if (job.body.size > most)
      throw Object.assign(
        new Error(`the image has ${bytes(job.body.size)}; this gateway takes at most ${bytes(most)}`),
        { code: "image_too_large" },
      );
    if (!job.body.size) throw Object.assign(new Error("the file is empty"), { code: "invalid_image" });
    const form = new FormData();
    form.set("image", job.body, "image");
    form.set("outputs", OUTPUTS);
    form.set("metadata", JSON.stringify({ filename: job.file.slice(0, LONGEST_NAME) }));
    if (by("model").value) form.set("model", by("model").value);
    return post("v1/jobs", { body: form, headers: { "Idempotency-Key": job.idempotency } });
  }
}

// Take files from wherever a person puts them: anywhere on the page.
export function listen(take) {
  const [input, drop] = [by("files"), by("drop")];
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest?.(".choose")) input.click();
    const sample = event.target.closest?.("[data-sample]");
    if (sample) sampleFile(sample.dataset.sample).then((file) => take([file]));
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
  let depth = 0; // of elements that a dragged file has entered
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  const show = (change) => {
    depth = Math.max(0, change === 0 ? 0 : depth + change);
    drop.hidden = depth === 0;
  };
  document.addEventListener("dragenter", (event) => carries(event) && show(1));
  document.addEventListener("dragleave", (event) => carries(event) && show(-1));
  document.addEventListener("dragover", (event) => {
    if (carries(event)) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    show(0);
    if (!carries(event)) return;
    event.preventDefault();
    take([...event.dataTransfer.files]);
  });
}

async function sampleFile(name) {
  const answer = await fetch(new URL(`page/sample-${name}.jpg`, document.baseURI));
  return new File([await answer.blob()], `sample-${name}.jpg`, { type: "image/jpeg" });
}
