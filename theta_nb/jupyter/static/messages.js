// What a view asks of Python: numbered requests, sent together, answered one by one.
//
// to Python:   {requests: [{id, channel, what, ...}], cancel: [channel, ...]}
// to browser:  {id, progress: [done, total]}, any number of times, then
//              {id, part, parts, result | error, sizes}  with buffers
//
// A newer request on a channel replaces an older one, here and in Python. Arrays stand in a result as
// {array: N, shape: [...]}, N counting the float32 arrays that the buffers hold one after the other.

const WAIT = 15; // ms in which requests gather

/** A request that is no longer wanted; callers leave it unanswered. */
export class Superseded extends Error {}

/** Python is gone; the view says so once, so callers leave it at that. */
export class Lost extends Superseded {}

/**
 * A way to ask.
 *
 * @param {function(Object): void} send sends a message to Python
 * @returns {{ask: function(string, string, Object, function(number, number)?): Promise, receive: function(Object, DataView[]): void, cancel, lose, onLost, close}}
 */
export function createClient(send, { wait = WAIT } = {}) {
  const own = Math.random().toString(36).slice(2, 10); // a widget may be shown twice, and all views hear all answers
  const waiting = new Map(); // id -> {channel, resolve, reject, parts}
  const latest = new Map(); // channel -> id
  const mourners = new Set();
  let [next, gathered, cancelled, timer, lost] = [1, [], [], 0, ""];

  const flush = () => {
    timer = 0;
    const message = { requests: gathered, cancel: cancelled };
    [gathered, cancelled] = [[], []];
    send(message);
  };
  const schedule = () => (timer ||= setTimeout(flush, wait));
  const drop = (channel) => {
    const id = latest.get(channel);
    if (id === undefined) return;
    latest.delete(channel);
    gathered = gathered.filter((request) => request.id !== id);
    waiting.get(id)?.reject(new Superseded(channel));
    waiting.delete(id);
  };
  return {
    /** Ask for something, at once if it is `urgent`; the promise is rejected by what Python says, or by a newer request on the channel. */
    ask(channel, what, details = {}, onProgress = null, urgent = false) {
      drop(channel);
      if (lost) return Promise.reject(new Lost(lost));
      const id = `${own}-${next++}`;
      latest.set(channel, id);
      gathered.push({ ...details, id, channel: `${own}:${channel}`, what });
      const answer = new Promise((resolve, reject) => waiting.set(id, { channel, resolve, reject, onProgress, buffers: [], sizes: [] }));
      if (urgent) clearTimeout(timer), flush();
      else schedule();
      return answer;
    },
    /** Stop what a channel is doing. */
    cancel(channel) {
      if (!latest.has(channel)) return;
      drop(channel);
      cancelled.push(`${own}:${channel}`);
      schedule();
    },
    /** Take a message from Python. */
    receive(message, buffers = []) {
      const request = waiting.get(message?.id);
      if (!request) return;
      if (message.progress) return void request.onProgress?.(...message.progress);
      request.buffers[message.part ?? 0] = buffers;
      if (message.sizes) Object.assign(request, { result: message.result, sizes: message.sizes });
      if (Object.keys(request.buffers).length < (message.parts ?? 1)) return;
      waiting.delete(message.id);
      if (latest.get(request.channel) === message.id) latest.delete(request.channel);
      if (message.error !== undefined && message.error !== null) request.reject(new Error(message.error));
      else request.resolve(decoded(request.result, joined(request.buffers.flat()), request.sizes));
    },
    /** Python is gone, and here is why: nothing that was asked for will come. */
    lose(reason) {
      lost = reason;
      clearTimeout(timer);
      for (const { reject } of waiting.values()) reject(new Lost(reason));
      for (const map of [waiting, latest]) map.clear();
      for (const mourner of [...mourners]) mourner(reason);
    },
    /** Be told when Python is gone, also if it is already; returns a function that ends it. */
    onLost(listener) {
      mourners.add(listener);
      if (lost) listener(lost);
      return () => mourners.delete(listener);
    },
    close() {
      clearTimeout(timer);
      for (const channel of [...latest.keys()]) drop(channel);
    },
  };
}

/** Float32 numbers of what came as bytes; copied only where they are not aligned. */
export function floats(bytes) {
  const { buffer, byteOffset = 0, byteLength } = bytes instanceof ArrayBuffer ? { buffer: bytes, byteLength: bytes.byteLength } : bytes;
  if (byteOffset % 4) return new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
  return new Float32Array(buffer, byteOffset, byteLength >> 2);
}

function joined(buffers) {
  const parts = buffers.map(floats);
  if (parts.length === 1) return parts[0];
  const whole = new Float32Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) whole.set(part, at), (at += part.length);
  return whole;
}

function decoded(result, numbers, sizes) {
  const starts = [0];
  for (const length of sizes) starts.push(starts.at(-1) + length);
  const walk = (value) => {
    if (Array.isArray(value)) return value.map(walk);
    if (value === null || typeof value !== "object") return value;
    if (Number.isInteger(value.array)) {
      return { data: numbers.subarray(starts[value.array], starts[value.array + 1]), shape: value.shape };
    }
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, walk(inner)]));
  };
  return walk(result);
}

/** JSON that was deflated, as {@link createClient}'s other end sends tables of names. */
export async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/** State that lives in the page alone; the counterpart of a widget's traits. */
export function createState(initial) {
  const values = { ...initial };
  const listeners = new Map();
  return {
    get: (name) => values[name],
    set(name, value) {
      if (values[name] === value) return;
      values[name] = value;
      for (const listener of listeners.get(name) ?? []) listener(value);
    },
    on(name, listener) {
      if (!listeners.has(name)) listeners.set(name, new Set());
      listeners.get(name).add(listener);
      return () => listeners.get(name).delete(listener);
    },
  };
}
