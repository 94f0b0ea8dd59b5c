// What the plugin says, and how much of it: a host, and whoever answers in its place, could have it say anything for ever.
import { printable } from "./glyphs.js";

const burst = 16; // lines of a kind at once, as a client in Go
const every = 10_000; // when one more of the kind is written: the latest

interface Tempo {
  used: number; // of the burst
  at: number;
  held: (() => void) | undefined; // writes the latest line that was not
  more: number; // that were not, before that
  timer: NodeJS.Timeout | undefined;
}

/** Writes lines, each as people may see it. Of a kind that goes on it writes a few, and then one in a while, with how many there were. */
export class Log {
  readonly #tempos = new Map<string, Tempo>();
  #closed = false;

  /** alert hears what an operator has to know. */
  constructor(private readonly to: (line: string) => void, private readonly alert: (line: string) => void) {}

  /** What happens. Kinds are few: a host's words are in what follows them. */
  say(kind: string, text = ""): void {
    this.#write(this.to, kind, text);
  }

  /** What an operator has to know, too, where nobody listens. */
  warn(kind: string, text = ""): void {
    this.#write(this.alert, kind, text);
  }

  /** Writes what is held. Later lines that are too many are dropped. */
  close(): void {
    this.#closed = true;
    for (const tempo of this.#tempos.values()) if (tempo.held) this.#release(tempo);
  }

  #write(to: (line: string) => void, kind: string, text: string): void {
    const now = performance.now();
    const key = `${to === this.to ? "" : "!"}${kind}`;
    const tempo = this.#tempos.get(key) ?? { used: 0, at: now, held: undefined, more: 0, timer: undefined };
    this.#tempos.set(key, tempo);
    tempo.used = Math.max(tempo.used - (now - tempo.at) / every, 0);
    tempo.at = now;
    const line = printable(text ? `${kind} ${text}` : kind);
    if (!tempo.held && tempo.used + 1 <= burst) {
      tempo.used++;
      return to(line);
    }
    if (this.#closed) return;
    if (tempo.held) tempo.more++;
    tempo.held = () => to(tempo.more > 0 ? `${line} (and ${tempo.more} more like it)` : line);
    tempo.timer ??= setTimeout(() => this.#release(tempo), (tempo.used + 1 - burst) * every).unref();
  }

  #release(tempo: Tempo): void {
    clearTimeout(tempo.timer);
    tempo.held?.();
    tempo.held = tempo.timer = undefined;
    tempo.more = 0;
    tempo.used = burst;
    tempo.at = performance.now();
  }
}
