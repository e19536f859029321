/// The HBM of one device as a shared rate server.
///
/// Rows and copies with priority are served at once and one after the other; long copies share what is left, either in
/// equal parts or in order of arrival. Time is whole picoseconds: the share of a long copy is kept as bytes served,
/// rounded down, so that a run is the same everywhere.
struct MemoryServer {
    private struct Job {
        let target: Int64
        let order: UInt64
        let copy: UInt32
    }

    private let rate: Rate
    private let isFair: Bool
    private var rowsUntil: Picoseconds = 0
    private var rowEngineUntil: Picoseconds = 0
    private let rowRate: Rate
    private var jobs: [Job] = []
    /// Time every long copy has been served, in picoseconds of the whole server, scaled by 2^8.
    private var served: Int64 = 0
    private var lastTarget: Int64 = 0
    private var lastUpdate: Picoseconds = 0
    private var stolen: Picoseconds = 0
    private var order: UInt64 = 0
    /// Time the server was busy.
    private(set) var busy: Picoseconds = 0
    /// Bytes read and written.
    private(set) var bytes: Int64 = 0

    init(rate: Rate, rowRate: Rate, isFair: Bool) {
        (self.rate, self.rowRate, self.isFair) = (rate, rowRate, isFair)
    }

    /// Serves a row or a copy with priority; returns when it is done.
    @inline(__always)
    mutating func serveFirst(_ count: Int64, at now: Picoseconds) -> Picoseconds {
        let time = rate.time(count)
        rowsUntil = max(rowsUntil, now) &+ time
        if !jobs.isEmpty { stolen &+= time }
        busy &+= time
        bytes &+= count
        return rowsUntil
    }

    /// Serves a local copy of rows, which the copy engine moves slower than HBM could.
    @inline(__always)
    mutating func serveRows(_ count: Int64, at now: Picoseconds) -> Picoseconds {
        rowEngineUntil = max(rowEngineUntil, now) &+ rowRate.time(count)
        return max(rowEngineUntil, serveFirst(count, at: now))
    }

    /// Takes a long copy; `nextCheck` says when to look for its end.
    mutating func add(_ copy: UInt32, bytes count: Int64, at now: Picoseconds) {
        update(to: now)
        let time = rate.time(count)
        let start = isFair ? served : max(served, lastTarget)
        lastTarget = start &+ (time << 8)
        jobs.append(Job(target: lastTarget, order: order, copy: copy))
        order &+= 1
        busy &+= time
        bytes &+= count
    }

    /// The earliest time a long copy can be done.
    var nextCheck: Picoseconds? {
        guard let first = firstJob else { return nil }
        let left = max(0, jobs[first].target &- served)
        let share = isFair ? Int64(jobs.count) : 1
        return lastUpdate &+ stolen &+ (left &* share &+ 255) >> 8
    }

    /// The next long copy that is done at `now`, if there is one.
    mutating func finished(at now: Picoseconds) -> UInt32? {
        update(to: now)
        guard let first = firstJob, jobs[first].target <= served &+ Int64(jobs.count) else { return nil }
        return jobs.remove(at: first).copy
    }

    private var firstJob: Int? {
        var best: Int?
        for index in jobs.indices {
            guard let known = best else {
                best = index
                continue
            }
            if jobs[index].target < jobs[known].target { best = index }
        }
        return best
    }

    private mutating func update(to now: Picoseconds) {
        var elapsed = now &- lastUpdate
        lastUpdate = now
        let taken = min(elapsed, stolen)
        stolen &-= taken
        elapsed &-= taken
        guard !jobs.isEmpty else {
            stolen = 0
            return
        }
        served &+= (elapsed << 8) / (isFair ? Int64(jobs.count) : 1)
    }
}

/// A directed link: copies leave it one after the other.
struct LinkServer {
    var queue = CopyQueue()
    var busy: Picoseconds = 0
    var bytes: Int64 = 0
}
