// What there is to say about a result.

import { el } from "./dom.js";
import { duration, timestamp } from "./format.js";

export function* facts(job) {
  const { result } = job;
  const fact = (term, text) =>
    el("div", {}, el("dt", {}, el("bdi", {}, term)), el("dd", {}, el("bdi", {}, text)));
  yield fact("Image", job.request.image_uri);
  yield fact("Size", `${result.width} × ${result.height} px`);
  yield fact("Model", result.model);
  if (result.model_revision) yield fact("Revision", result.model_revision);
  yield fact("Computed by", [result.backend, result.dtype, result.precision].filter(Boolean).join(", "));
  if (result.uncertain_share)
    yield fact("Uncertain", `${(100 * result.uncertain_share).toFixed(2)}% of the pixels`);
  yield fact("Submitted", timestamp(job.created_ms));
  if (job.started_ms) yield fact("Waited", duration(job.started_ms - job.created_ms));
  if (job.started_ms) yield fact("Took", duration(job.ended_ms - job.started_ms));
  const stages = Object.entries(result.timings_ms ?? {}).map(([stage, ms]) => `${stage} ${duration(ms)}`);
  if (stages.length) yield fact("Stages", stages.join(", "));
  if (result.notes?.length) yield fact("Notes", result.notes.join("; "));
  if (job.batch_id) yield fact("Batch", job.batch_id);
  if (job.tenant) yield fact("Tenant", job.tenant);
  for (const [name, value] of Object.entries(job.request.metadata ?? {})) yield fact(name, value);
}
