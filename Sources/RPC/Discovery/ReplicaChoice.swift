/// Which of several replicas takes the next call, as a pure value. All of them give the same answer, so only load and
/// luck count.
struct ReplicaChoice: Sendable, Equatable {
    /// A replica that could take a call.
    struct Candidate: Sendable, Equatable {
        /// Its number; never given twice.
        let id: Int
        /// Our calls that it has not answered.
        let pending: Int
    }

    private var lastUse: [Int: UInt64] = [:]
    private var clock: UInt64 = 0

    /// The one with the fewest calls, among those the one whose last call is longest ago. `avoiding` is taken only when
    /// it is alone: it has just failed. Nil when there is none.
    mutating func next(_ candidates: [Candidate], avoiding: Int? = nil) -> Int? {
        let others = candidates.filter { $0.id != avoiding }
        let chosen = (others.isEmpty ? candidates : others).min {
            ($0.pending, lastUse[$0.id, default: 0], $0.id) < ($1.pending, lastUse[$1.id, default: 0], $1.id)
        }
        guard let chosen else { return nil }
        clock += 1
        lastUse[chosen.id] = clock
        return chosen.id
    }

    /// Forgets a replica that left.
    mutating func forget(_ id: Int) { lastUse[id] = nil }
}
