// What people said and the server has not confirmed yet: kept in the browser, sent in order until it is

const RETRY = 1500;

export class Outbox {
  /** `changed(count, trouble)` hears of every change; `heard(entry, answer)` and `refused(entry, text)` of answers,
   * `emptied()` of the end of some trouble. */
  constructor(start, { changed, heard, refused, emptied }) {
    Object.assign(this, { changed, heard, refused, emptied });
    this.prefix = `recgpt/${start.buffer}/`;
    this.csrf = start.csrf;
    this.tab = Math.random().toString(36).slice(2, 8);
    this.count = 0;
    // Where the browser keeps nothing (a full store, a private window), memory does.
    this.memory = new Map();
    this.running = null;
  }

  keys() {
    const kept = Array.from({ length: localStorage.length }, (_, place) => localStorage.key(place));
    return [...kept.filter((name) => name.startsWith(this.prefix)), ...this.memory.keys()].sort();
  }

  entries() {
    return this.keys().map((name) => this.read(name)).filter(Boolean);
  }

  read(name) {
    try {
      return this.memory.get(name) ?? JSON.parse(localStorage.getItem(name));
    } catch {
      return null;
    }
  }

  remove(name) {
    this.memory.delete(name);
    localStorage.removeItem(name);
  }

  put(path, body) {
    this.count += 1;
    const order = `${String(Date.now()).padStart(15, "0")}-${String(this.count).padStart(6, "0")}`;
    const name = `${this.prefix}${order}-${this.tab}`;
    try {
      localStorage.setItem(name, JSON.stringify({ path, body }));
    } catch {
      this.memory.set(name, { path, body });
    }
    return this.flush();
  }

  /** Send what waits, one after another; a second call joins the first. */
  flush() {
    this.running ??= this.send().finally(() => {
      this.running = null;
    });
    return this.running;
  }

  async send() {
    clearTimeout(this.timer);
    for (let name = this.keys()[0]; name; name = this.keys()[0]) {
      const entry = this.read(name);
      if (!entry) {
        this.remove(name);
        continue;
      }
      this.changed(this.keys().length, "");
      const [status, answer] = await this.post(entry);
      if (status === 200) {
        this.remove(name);
        this.heard(entry, answer);
      } else if (status === 409 || status === 422) {
        this.remove(name);
        this.refused(entry, answer.error ?? "The server does not take this answer.");
      } else if (status === 403 && (await this.renew())) {
        continue;
      } else {
        this.changed(this.keys().length, trouble(status, answer));
        this.troubled = true;
        this.timer = setTimeout(() => this.flush(), RETRY);
        return false;
      }
    }
    this.changed(0, "");
    if (this.troubled) this.emptied();
    this.troubled = false;
    return true;
  }

  async post({ path, body }) {
    try {
      const response = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRF-Token": this.csrf },
        body: JSON.stringify(body),
      });
      return [response.status, await response.json().catch(() => ({}))];
    } catch {
      return [0, {}];
    }
  }

  /** A server that was started anew has another token, which a page with its new cookie may read. */
  async renew() {
    try {
      const { csrf } = await get("/api/start");
      const other = csrf !== this.csrf;
      this.csrf = csrf;
      return other;
    } catch {
      return false;
    }
  }
}

function trouble(status, answer) {
  if (status === 401 || status === 403) return "The server was started anew: open the address that it printed.";
  if (status === 0) return "The server does not answer; trying again.";
  return answer.error ?? `The server answers ${status}; trying again.`;
}

/** Ask the server; an error carries its words and its status. */
export async function get(path, query = {}) {
  let response;
  try {
    response = await fetch(`${path}?${new URLSearchParams(query)}`);
  } catch {
    throw Object.assign(new Error(trouble(0, {})), { status: 0 });
  }
  if (response.ok) return response.json();
  const answer = await response.json().catch(() => ({}));
  throw Object.assign(new Error(trouble(response.status, answer)), { status: response.status });
}
