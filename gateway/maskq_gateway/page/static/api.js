// Calls of the HTTP API with the key of this tab. The key is sent in a header, never in a URL.

const STORED = "maskq.api_key";
const LONGEST_RETRY_S = 30;

export class ApiError extends Error {
  // document: an RFC 9457 problem, or what little is known.
  constructor(status, document) {
    super(document.detail || document.title || `the gateway answered ${status}`);
    this.status = status;
    this.code = document.code || "";
  }
}

export const key = {
  get: () => sessionStorage.getItem(STORED),
  set: (text) => sessionStorage.setItem(STORED, text),
  forget: () => sessionStorage.removeItem(STORED),
};

const pause = (seconds, signal) =>
  new Promise((done, refused) => {
    const timer = setTimeout(done, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      refused(signal.reason);
    });
  });

// The answer to a request, once it is a success. Raises ApiError; status 0: no answer.
// Waits and asks again where the key's rate is reached (429), and for GET where a store is away (503).
export async function call(path, { headers = {}, ...options } = {}) {
  const method = options.method ?? "GET";
  for (let attempt = 0; ; attempt++) {
    let answer;
    try {
      answer = await fetch(new URL(path, document.baseURI), {
        ...options,
        headers: { Authorization: `Bearer ${key.get() ?? ""}`, ...headers },
        cache: "no-store",
        credentials: "omit",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, { code: "unreachable", detail: "the gateway does not answer" });
    }
    if (answer.ok) return answer;
    const later = answer.status === 429 || (answer.status === 503 && method === "GET");
    if (later && attempt < 3) {
      const seconds = Number(answer.headers.get("Retry-After")) || 2 ** attempt;
      await pause(Math.min(seconds, LONGEST_RETRY_S), options.signal);
      continue;
    }
    const problem = await answer.json().catch(() => ({}));
    throw new ApiError(answer.status, problem ?? {});
  }
}

export const get = async (path, options) => (await call(path, options)).json();

export const post = async (path, options) => (await call(path, { method: "POST", ...options })).json();

// The bytes of an output, through the gateway: the store may not be reachable from here.
export const output = async (id, name, options) =>
  (await call(`v1/jobs/${encodeURIComponent(id)}/outputs/${name}?delivery=stream`, options)).blob();
