// Sessions: what makes a write that is sent twice happen once.
//
// A session belongs to one shard. Each write takes the next sequence and keeps it for
// all its repetitions; `ackedTo` tells the shard which replies it may forget. It rises
// over sequences that are settled, answered or given up, and a sequence may be at most
// WINDOW above it: who finds no room waits until an earlier write is settled.

const WINDOW = 1024;

class Session {
  constructor(shard, id) {
    this.shard = shard;
    this.id = id;
    this.ackedTo = 0;
    this.sequenceNext = 1;
    this.settled = new Set(); // above ackedTo: those that overtook an unsettled one
    this.waiting = []; // to be called when there is room again
  }

  get hasRoom() {
    return this.sequenceNext - this.ackedTo <= WINDOW;
  }

  take() {
    const sequence = this.sequenceNext++;
    return { session: this, sequence, settle: () => this.settle(sequence) };
  }

  settle(sequence) {
    this.settled.add(sequence);
    while (this.settled.delete(this.ackedTo + 1)) {
      this.ackedTo++;
    }
    for (const wake of this.waiting.splice(0)) {
      wake();
    }
  }
}

/** At most one current session per shard; `open(shard)` asks the cluster for an id. */
export class Sessions {
  constructor(open) {
    this.open = open;
    this.current = new Map(); // shard -> promise of a Session
  }

  /** A place for one write to the shard: `{session, sequence, settle}`. */
  async ticket(shard) {
    for (;;) {
      const session = await this.session(shard);
      if (session.hasRoom) {
        return session.take();
      }
      await new Promise((wake) => session.waiting.push(wake));
    }
  }

  session(shard) {
    let found = this.current.get(shard);
    if (found === undefined) {
      found = this.open(shard).then((id) => new Session(shard, id));
      this.current.set(shard, found);
      // One that could not be opened is asked for anew by the next write.
      found.catch(() => this.current.get(shard) === found && this.current.delete(shard));
    }
    return found;
  }

  /** The shard has forgotten this session: the next write opens another. */
  async expire(session) {
    const found = this.current.get(session.shard);
    const same = found !== undefined && (await found) === session;
    if (same && this.current.get(session.shard) === found) {
      this.current.delete(session.shard);
    }
  }
}
