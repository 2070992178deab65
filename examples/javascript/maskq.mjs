// A client of maskq's HTTP API for Node 18 and browsers, without dependencies. From a shell:
//
//     MASKQ_GATEWAY_URL=http://127.0.0.1:8090 MASKQ_API_KEY=maskq_… node maskq.mjs photo.jpg mask.png
//
// docs/http.md describes every route; the types below are those of /openapi.json.

/** An answer that is not a success: `code` is stable, `message` is for people. */
export class MaskqError extends Error {
  /** @param {{code?: string, detail?: string, status: number}} problem */
  constructor(problem) {
    super(problem.detail ?? `HTTP status ${problem.status}`);
    this.name = "MaskqError";
    this.code = problem.code ?? "internal";
    this.status = problem.status;
  }
}

/**
 * @typedef {"queued"|"running"|"succeeded"|"failed"|"canceled"|"expired"} Status
 * @typedef {{id: string, status: Status, model: string, result?: object,
 *            error?: {code: string, message: string}}} Job
 */
export class Maskq {
  /** @param {string} url of the gateway  @param {string} key an API key */
  constructor(url, key) {
    this.url = url.replace(/\/$/, "");
    this.headers = { Authorization: `Bearer ${key}` };
  }

  /**
   * Submit an image; returns when the job is safe.
   * @param {Blob|string} image its bytes, or `s3://bucket/key`, or an https URL
   * @param {Record<string, unknown>} options as docs/http.md names them: {outputs: ["mask", "stats"]}
   * @param {string} [idempotencyKey] repeated with the same key, the first job is returned
   * @returns {Promise<Job>}
   */
  async submit(image, options = {}, idempotencyKey) {
    const headers = idempotencyKey ? { "Idempotency-Key": idempotencyKey } : {};
    if (typeof image === "string") {
      const body = JSON.stringify({ ...options, image_uri: image });
      return this.#json("/v1/jobs", {
        method: "POST", body, headers: { ...headers, "Content-Type": "application/json" },
      });
    }
    const form = new FormData();
    form.append("image", image);
    for (const [name, value] of Object.entries(options)) {
      if (Array.isArray(value)) value.forEach((one) => form.append(name, String(one)));
      else form.append(name, typeof value === "object" ? JSON.stringify(value) : String(value));
    }
    return this.#json("/v1/jobs", { method: "POST", body: form, headers });
  }

  /**
   * Submit an image of any size: it goes to the object store, not through the gateway.
   * @param {Blob} image  @param {Record<string, unknown>} options  @returns {Promise<Job>}
   */
  async submitLarge(image, options = {}) {
    const asked = { bytes: image.size, ...(options.tenant ? { tenant: options.tenant } : {}) };
    const post = { method: "POST", headers: { "Content-Type": "application/json" } };
    const upload = await this.#json("/v1/uploads", { ...post, body: JSON.stringify(asked) });
    // Without the API key: the URL itself is signed. fetch sends the Content-Length by itself.
    const stored = await fetch(upload.url, { method: upload.method, body: image });
    if (!stored.ok) throw new MaskqError({ detail: await stored.text(), status: stored.status });
    const body = JSON.stringify({ ...options, upload_id: upload.upload_id });
    return this.#json("/v1/jobs", { ...post, body });
  }

  /** The job's record. @param {string} id @param {number} wait seconds for its end @returns {Promise<Job>} */
  get(id, wait = 0) {
    return this.#json(`/v1/jobs/${encodeURIComponent(id)}?wait=${wait}`);
  }

  /**
   * The record of a job that succeeded. Throws MaskqError with the job's own code if it did not.
   * @param {string} id @returns {Promise<Job>}
   */
  async result(id) {
    for (;;) {
      const job = await this.get(id, 30);
      if (job.status === "succeeded") return job;
      if (job.status !== "queued" && job.status !== "running") {
        throw new MaskqError({ code: job.error?.code, detail: job.error?.message, status: 200 });
      }
    }
  }

  /** The file of an output. @param {string} id @param {string} output @returns {Promise<Blob>} */
  async output(id, output) {
    const path = `/v1/jobs/${encodeURIComponent(id)}/outputs/${output}?delivery=stream`;
    return (await this.#ask(path)).blob();
  }

  /** Take a job back. @param {string} id @returns {Promise<Job>} */
  cancel(id) {
    return this.#json(`/v1/jobs/${encodeURIComponent(id)}/cancel`, { method: "POST" });
  }

  /**
   * Events as they happen: `for await (const {cursor, event} of maskq.events({job: [id]}))`.
   * @param {{since?: string, job?: string[], type?: string[], signal?: AbortSignal}} options
   */
  async *events({ since, job = [], type = [], signal } = {}) {
    const query = new URLSearchParams(since ? { since } : {});
    job.forEach((one) => query.append("job", one));
    type.forEach((one) => query.append("type", one));
    const answer = await this.#ask(`/v1/events?${query}`, { signal });
    let text = "";
    for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
      text += part;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(
          block.split("\n").map((line) => line.split(/: (.*)/s, 2)),
        );
        if (fields.data) yield { cursor: fields.id, event: JSON.parse(fields.data) };
      }
    }
  }

  async #json(path, options) {
    return (await this.#ask(path, options)).json();
  }

  async #ask(path, options = {}) {
    const answer = await fetch(this.url + path, {
      ...options, headers: { ...this.headers, ...options.headers },
    });
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({}));
    throw new MaskqError({ ...problem, status: answer.status });
  }
}

if (globalThis.process?.argv[1]?.endsWith("maskq.mjs")) {
  const { openAsBlob } = await import("node:fs");
  const { writeFile } = await import("node:fs/promises");
  const [photo, mask] = process.argv.slice(2);
  const { MASKQ_GATEWAY_URL, MASKQ_API_KEY } = process.env;
  if (!photo || !mask || !MASKQ_GATEWAY_URL || !MASKQ_API_KEY) {
    console.error("usage: MASKQ_GATEWAY_URL=… MASKQ_API_KEY=… node maskq.mjs PHOTO MASK.png");
    process.exit(2);
  }
  const maskq = new Maskq(MASKQ_GATEWAY_URL, MASKQ_API_KEY);
  try {
    const { id } = await maskq.submit(await openAsBlob(photo), { outputs: ["mask", "stats"] });
    const job = await maskq.result(id);
    await writeFile(mask, Buffer.from(await (await maskq.output(id, "mask")).arrayBuffer()));
    for (const { label, share } of job.result.stats) console.log(`${label}: ${(100 * share).toFixed(0)}%`);
  } catch (error) {
    console.error(`${photo}: ${error.code}: ${error.message}`);
    process.exitCode = 1;
  }
}
